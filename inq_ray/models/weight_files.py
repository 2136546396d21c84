"""Files of weights: safetensors, or a state dict by torch's weights-only loader; nothing is ever unpickled."""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

SAFETENSORS = (".safetensors",)
# ".tar" is what torch's ImageNet example writes (checkpoint.pth.tar), ".th" what akamaster's CIFAR ResNets come in.
STATE_DICTS = (".pth", ".pt", ".bin", ".th", ".tar")
# Where checkpoints keep their tensors. An average of weights comes first, as where torchvision's reference and timm
# evaluate a checkpoint: its accuracy is the one that is published.
_WRAPPERS = ("model_ema", "state_dict_ema", "state_dict", "model", "model_state_dict")
# torch.optim.swa_utils.AveragedModel, and so the "model_ema" of torchvision's reference, counts its updates.
_COUNTER = "n_averaged"


class WeightsError(ValueError):
    """Weights cannot be used.

    Attributes:
        reason: What is wrong, without --weights and what to do about that flag: for weights that another flag names.
    """

    def __init__(self, reason: str, *, flag: str = "", advice: str = "") -> None:
        self.reason = reason
        super().__init__(f"{flag}{' ' if flag else ''}{reason}{advice}")


class Tensors(NamedTuple):
    """What a file holds: tensors by name, and under which key of the file they were ("" = they are the file)."""

    tensors: dict[str, Tensor]
    part: str


def is_weights_file(weights: str) -> bool:
    """Whether what a user passed as weights names a file, and not trained weights by name."""
    path = expanded(weights)
    return "/" in weights or path.suffix in SAFETENSORS + STATE_DICTS or path.exists()


def existing_file(weights: str | Path) -> Path:
    """Return the path of a file of weights, without the "~" of a home.

    Raises:
        ValueError: There is no such file, or no such home.
    """
    path = expanded(weights)
    if not path.is_file():
        raise ValueError(f"weights: {'not a file' if path.exists() else 'no such file'}: {path}")
    return path


def expanded(weights: str | Path) -> Path:
    """Return a path without the "~" of a home.

    Raises:
        ValueError: There is no such home.
    """
    try:
        return Path(weights).expanduser()
    except RuntimeError as error:
        raise ValueError(f"weights: {weights}: there is no such home folder") from error


def read_tensors(path: Path) -> Tensors:
    """Return the tensors of a file by name, plain ones on the CPU, at least one.

    Raises:
        ValueError: The file is of another kind, not readable, has no tensors, or such as hold no plain numbers
            (sparse, quantized by torch, on "meta"); one line.
    """
    if path.suffix in SAFETENSORS:
        try:
            found = Tensors(load_file(path), "")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"weights: cannot read {path} as safetensors: {first_line(error)}") from error
        if not found.tensors:
            raise ValueError(f"weights: {path} holds no tensors; save model.state_dict()")
    elif path.suffix in STATE_DICTS:
        found = _tensors(path, _read_state_dict(path))
    else:
        allowed = ", ".join(SAFETENSORS + STATE_DICTS)
        raise ValueError(f"weights: {path} ends in {path.suffix!r}; allowed are {allowed}")
    for name, tensor in found.tensors.items():
        if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
            kind = "meta" if tensor.is_meta else "quantized" if tensor.is_quantized else str(tensor.layout)
            raise ValueError(f"weights: {path} holds {name} as a tensor of kind {kind}: save plain ones, on a device")
    return found


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, without a terminal's colours, or its type."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return (text.splitlines() or [type(error).__name__])[0].rstrip()


def _read_state_dict(path: Path) -> object:
    try:
        # torchvision's reference and timm keep their arguments in it: a class that only holds what is put into it.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail as anything; it is always the file's fault
        raise ValueError(
            f"weights: cannot read {path} as a state dict: damaged, or it holds more than tensors and would run code "
            f"when loaded (then save model.state_dict() alone, best as .safetensors): {first_line(error)}"
        ) from error


def _tensors(path: Path, loaded: object) -> Tensors:
    """Return the state dict within what was loaded."""
    part = ""
    for key in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(inner := loaded.get(key), dict):
            loaded, part = inner, key
            break
    if not isinstance(loaded, dict):
        raise ValueError(f"weights: {path} holds a {type(loaded).__name__}, not a state dict of tensors by name")
    tensors = {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors.keys() - {_COUNTER} and all(key.startswith("module.") for key in tensors.keys() - {_COUNTER}):
        tensors.pop(_COUNTER, None)
    if not tensors:
        found = ", ".join(map(str, list(loaded)[:5])) or "nothing"
        raise ValueError(f"weights: {path} holds no tensors by name, only: {found}; save model.state_dict()")
    return Tensors(tensors, part)
