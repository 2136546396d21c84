"""An ONNX file as a network: run by ONNX Runtime on the CPU."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as errors
from torch import Tensor, nn

from inq_ray.files.shown import one_line

_ERRORS = (
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NotImplemented,
    errors.RuntimeException,
)
_ONLY_FATAL = 4  # ONNX Runtime would also print what it raises


class OnnxNetwork(nn.Module):
    """A network in an ONNX file, for inference.

    Args:
        path: The file, with the input "images" and the output "logits".

    Raises:
        ValueError: ONNX Runtime cannot run the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ONLY_FATAL
        try:
            self._session = onnxruntime.InferenceSession(path.read_bytes(), options, ["CPUExecutionProvider"])
        except _ERRORS as error:
            raise ValueError(one_line(f"ONNX Runtime cannot load {path}: {error}")) from error

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, float32 [N, classes], of images, float32 [N, C, H, W].

        Raises:
            ValueError: ONNX Runtime cannot run the network on these images.
        """
        try:
            (logits,) = self._session.run(["logits"], {"images": np.ascontiguousarray(images.numpy())})
        except _ERRORS as error:
            raise ValueError(one_line(f"ONNX Runtime cannot run the file on {list(images.shape)}: {error}")) from error
        return torch.from_numpy(logits)
