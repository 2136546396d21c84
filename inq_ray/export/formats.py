"""The files of a result: each format is one entry here, and a file of its own."""

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from torch import Tensor

from inq_ray.core.state import TensorState
from inq_ray.export import codes_file, model_file
from inq_ray.files.shown import quoted
from inq_ray.files.whole import whole


class Format(NamedTuple):
    """A file of a result.

    Attributes:
        file: Its name.
        write: Writes it to a path, given the network's state and the quantized tensors' states by name, all frozen.
            The same result gives the same bytes. Raises OSError or SafetensorError.
        verify: Reads it back from a path, and compares it with the tensors of model.safetensors, given the names of the
            quantized ones. Raises :class:`inq_ray.export.errors.VerificationError`.
    """

    file: str
    write: Callable[[Path, Mapping[str, Tensor], Mapping[str, TensorState]], None]
    verify: Callable[[Path, Mapping[str, Tensor], Collection[str]], None]


FORMATS = (
    Format(model_file.MODEL_FILE, model_file.write, model_file.verify),
    Format(codes_file.CODES_FILE, codes_file.write, codes_file.verify),
)


def write_result(folder: str | Path, model_state: Mapping[str, Any], states: Mapping[str, TensorState]) -> None:
    """Write all files into a folder, which is made if it is missing; the same result gives the same bytes.

    Args:
        folder: Folder on any file system with an atomic rename.
        model_state: `model.state_dict()` of the unwrapped model, on any device; shared tensors are written once a name.
        states: States by parameter name, with every weight frozen.

    Raises:
        ValueError: A weight is still live or not what its code stands for, a tensor of `states` is not in `model_state`
            in its shape, something in that is no tensor, or the files cannot be written: then those of before stand.
    """
    folder = Path(folder)
    _check(model_state, states)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # All are written beside before one is renamed: a disk that is full leaves no two that do not fit together.
        with ExitStack() as stack:
            for each in FORMATS:
                each.write(stack.enter_context(whole(folder / each.file)), model_state, states)
    except (OSError, SafetensorError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        raise ValueError(
            f"cannot write the result to {folder}: {reason}; make room, and give the same command again"
        ) from error


def _check(model_state: Mapping[str, Any], states: Mapping[str, TensorState]) -> None:
    for name, state in states.items():
        if state.num_frozen != state.frozen.numel():
            raise ValueError(f"{state.frozen.numel() - state.num_frozen} weights of {name!r} are still live")
        if name not in model_state or model_state[name].shape != state.codes.shape:
            raise ValueError(
                f"{name!r} of shape {list(state.codes.shape)} is not in the model's state: give state_dict() of the "
                "network inside DDP or torch.compile"
            )
        if reason := codes_file.fault(name, model_state[name].detach().cpu(), state.codebook, state.codes.cpu()):
            raise ValueError(
                f"{quoted(name)} is not what its codes stand for ({reason}): load nothing into the network after the "
                "last stage; float_state(scheduler.state) has its weights"
            )
    odd = [name for name, value in model_state.items() if not isinstance(value, Tensor)]
    if odd:
        raise ValueError(f"{odd[0]!r} of the model's state is no tensor, and files take tensors alone: leave it out")
