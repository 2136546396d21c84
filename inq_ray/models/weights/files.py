"""Weight files: safetensors, or state dicts read by torch's weights-only loader; nothing is ever unpickled."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from inq_ray import safetensors_file
from inq_ray.export.packed import reader
from inq_ray.files.kind import kind_of
from inq_ray.files.shown import one_line
from inq_ray.models.weights import state_dicts

SAFETENSORS = (".safetensors",)
# ".tar": torch's ImageNet example (checkpoint.pth.tar); ".th": akamaster's CIFAR ResNets; ".ckpt": Lightning.
STATE_DICTS = (".pth", ".pt", ".bin", ".th", ".tar", ".ckpt")
# Update counter of torch.optim.swa_utils.AveragedModel, and so of "model_ema" in torchvision's reference.
_COUNTER = "n_averaged"
_DEEPEST = 8


class WeightsError(ValueError):
    """Weights that cannot be used.

    Attributes:
        reason: What is wrong, without the name of --weights, for callers whose weights come from another flag.
    """

    def __init__(self, reason: str, *, flag: str = "", advice: str = "") -> None:
        self.reason = one_line(reason)
        super().__init__(one_line(f"{flag}{' ' if flag else ''}{reason}{advice}"))


class Tensors(NamedTuple):
    """Tensors by name, and their keys in the file, such as "checkpoint.model"; "" if they are the whole file."""

    tensors: dict[str, Tensor]
    part: str


def is_weights_file(weights: str) -> bool:
    """Return whether a --weights value names a file, not trained weights by name."""
    path = expanded(weights)
    return "/" in weights or path.suffix in SAFETENSORS + STATE_DICTS or os.path.exists(path)


def existing_file(weights: str | Path) -> Path:
    """Return the path of a weight file, with "~" expanded.

    Raises:
        ValueError: The file or the home folder does not exist.
    """
    path = expanded(weights)
    if not os.path.isfile(path):  # unlike Path.is_file, false for names that are too long
        raise ValueError(one_line(f"weights: {'not a file' if os.path.exists(path) else 'no such file'}: {path}"))
    return path


def expanded(weights: str | Path) -> Path:
    """Return a path with "~" expanded.

    Raises:
        ValueError: The home folder does not exist.
    """
    try:
        return Path(weights).expanduser()
    except RuntimeError as error:
        raise ValueError(one_line(f"weights: {weights}: there is no such home folder")) from error


def read_parts(path: Path) -> list[Tensors]:
    """Return every dictionary of tensors in a file, as plain tensors on the CPU; at least one.

    Raises:
        ValueError: The file has another format, is not readable, has no tensors, or has tensors without plain numbers
            (sparse, quantized by torch, on "meta"); one line.
    """
    if path.suffix in SAFETENSORS:
        try:
            tensors, metadata = safetensors_file.read(path)
            if reader.METADATA_KEY in metadata:
                tensors = reader.unpack(path, tensors, metadata).state
            parts = [Tensors(tensors, "")]
        except ValueError as error:
            raise ValueError(one_line(f"weights: cannot read {error}")) from error
        if not parts[0].tensors:
            raise ValueError(one_line(f"weights: {path} holds no tensors; save model.state_dict()"))
    elif path.suffix in STATE_DICTS:
        parts = _parts(path, state_dicts.load(path))
    else:
        allowed = ", ".join(SAFETENSORS + STATE_DICTS)
        kind = f", it is {kind}" if (kind := kind_of(path)) else ""
        raise ValueError(one_line(f"weights: {path} ends in {path.suffix!r}{kind}; allowed are {allowed}"))
    for name, tensor in (item for part in parts for item in part.tensors.items()):
        if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
            kind = "meta" if tensor.is_meta else "quantized" if tensor.is_quantized else str(tensor.layout)
            what = f"weights: {path} holds {one_line(name, 60)} as a tensor of kind {kind}"
            raise ValueError(one_line(f"{what}: save dense tensors with values"))
    return parts


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, without terminal colors; its type if the message is empty."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return one_line((text.splitlines() or [type(error).__name__])[0].rstrip())


def _parts(path: Path, loaded: object) -> list[Tensors]:
    if not isinstance(loaded, dict):
        raise ValueError(
            one_line(f"weights: {path} holds a {type(loaded).__name__}, not a state dict of tensors by name")
        )
    parts = list(_walk(loaded))
    if not parts:
        found = ", ".join(one_line(str(key), 40) for key in list(loaded)[:5]) or "nothing"
        are_arrays = any(isinstance(value, state_dicts.Passed) for value in loaded.values())
        advice = "model.state_dict(), with tensors instead of NumPy arrays" if are_arrays else "model.state_dict()"
        raise ValueError(one_line(f"weights: {path} has no tensors by name, only: {found}; save {advice}"))
    return parts


def _walk(loaded: dict[object, object]) -> Iterator[Tensors]:
    """Yield the dictionaries of tensors, outer ones first; lists and keys that are not strings are skipped."""
    level, seen = {"": loaded}, {id(loaded)}
    for _ in range(_DEEPEST):
        inner: dict[str, dict[object, object]] = {}
        for part, values in level.items():
            named = {key: value for key, value in values.items() if isinstance(key, str)}
            tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
            if tensors.keys() - {_COUNTER} and all(key.startswith("module.") for key in tensors.keys() - {_COUNTER}):
                tensors.pop(_COUNTER, None)
            if tensors:
                yield Tensors(tensors, part)
            for key, value in named.items():
                if isinstance(value, dict) and id(value) not in seen:
                    seen.add(id(value))
                    inner[f"{part}.{key}".removeprefix(".")] = value
        level = inner
