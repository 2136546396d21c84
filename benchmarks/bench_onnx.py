"""Size of ONNX files with codes and seconds to load them, compared with the float file: ResNet-18, random weights.

Each file's outputs are compared with the float file's, bit for bit.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from inq_ray.core.stage import apply, decide
from inq_ray.core.state import TensorState
from inq_ray.export.onnx.codes import LAYOUTS
from inq_ray.export.onnx.model import export_onnx, float_model
from inq_ray.export.packed.reader import PackedTensor
from inq_ray.models.registry import create
from inq_ray.models.selection import choose


def main() -> None:
    """Print a table."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    print("bits  levels  layout        bytes  of float  load, s  of float  same outputs")
    for bits, levels in ((5, "paper"), (4, "paper"), (3, "paper"), (3, "full"), (2, "paper")):
        network = create("resnet18", num_classes=1000)
        quantized = {}
        for name in choose(network, bits):
            weight = network.get_parameter(name)
            state = TensorState.live(weight, bits, levels)  # type: ignore[arg-type]
            update = decide(weight, state, 1.0, name=name, strategy="pruning", seed=0, stage=0, rule="mse")
            apply(weight, state, update)
            quantized[name] = PackedTensor(codebook=state.codebook, codes=state.codes, num_bytes=0)
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "float.onnx"
            plain.write_bytes(float_model(network, images).SerializeToString())
            float_seconds, expected = _load_and_run(plain, images)
            size = plain.stat().st_size
            print(f"{'':4}  {'':6}  {'float':6}  {size:11,}  {'':8}  {float_seconds:7.1f}")
            for layout in LAYOUTS:
                path = Path(folder) / "codes.onnx"
                export_onnx(network, images, path, quantized=quantized, layout=layout, facts={}, digest="0" * 64)
                seconds, logits = _load_and_run(path, images)
                own, same = path.stat().st_size, np.array_equal(logits, expected)
                of_float = f"1/{size / own:<6.1f}  {seconds:7.1f}  {seconds / float_seconds:8.1f}"
                print(f"{bits:4}  {levels:6}  {layout:6}  {own:11,}  {of_float}  {same}")


def _load_and_run(path: Path, images: torch.Tensor) -> tuple[float, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    begin = time.perf_counter()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    seconds = time.perf_counter() - begin
    return seconds, session.run(None, {"images": images.numpy()})[0]


if __name__ == "__main__":
    main()
