"""model.safetensors: the network's state as plain tensors, for `model.load_state_dict`."""

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from inq_ray import safetensors_file
from inq_ray.export.result import Result

MODEL_FILE = "model.safetensors"


def write(path: Path, result: Result) -> None:
    """Write the network's state; see :class:`inq_ray.export.formats.Format`."""
    safetensors_file.save(path, result.model_state, {"format": "pt"})


def read_model(path: str | Path) -> dict[str, Tensor]:
    """Return all tensors, on the CPU.

    Raises:
        ValueError: The file is missing, truncated or not a safetensors file.
    """
    return safetensors_file.read(Path(path))[0]


def verify(path: Path, model: Mapping[str, Tensor], names: Collection[str]) -> None:
    """Do nothing: `model` is the contents of this file, and the other files are compared with it."""
