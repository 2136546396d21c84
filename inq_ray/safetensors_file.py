"""Safetensors files: written with the process's usual permissions, and checked when read."""

import json
import math
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from inq_ray.files.kind import kind_of
from inq_ray.files.shown import one_line, quoted

# Errors of safetensors and torch for damaged headers: shapes beyond 64 bits, unknown types.
_DAMAGED = (
    AttributeError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)
# By the format's names. Types smaller than a byte, and scale-only types, have no arithmetic.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "BOOL": torch.bool,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
}
DTYPES = frozenset(_DTYPES.values())
MOST_DIMENSIONS = 64  # torch's own limit
_LARGEST_HEADER = 100_000_000  # the format's own limit


class Entry(NamedTuple):
    """A tensor in a file: its bytes are from `start` to before `stop`."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def save(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors of any device; equal tensors and metadata give equal bytes.

    Args:
        path: Path of the file.
        tensors: Tensors by name; a shared tensor is written once per name.
        metadata: At most one key, because safetensors writes several in random order.

    Raises:
        OSError: The file cannot be written.
    """
    assert len(metadata) <= 1, metadata
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)  # the umask cannot be read without setting it for all threads
    try:
        save_file(_plain(tensors), path, metadata)
    except SafetensorError as error:  # also of the system, such as a full disk
        raise OSError(str(error)) from error
    path.chmod(mode)  # safetensors creates files that only their owner may read


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return all tensors, on the CPU, and the metadata.

    Raises:
        ValueError: The file is missing, truncated, damaged or not a safetensors file; one line.
    """
    if not path.is_file():
        raise ValueError(one_line(f"{path}: no such file"))
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
        _check(tensors)
    except _DAMAGED as error:
        raise ValueError(
            one_line(f"{path}: not a whole safetensors file ({kind_of(path) or _reason(error)})")
        ) from error
    return tensors, metadata


def decode_header(read: Callable[[int, int], bytes], num_bytes: int) -> dict[str, Entry]:
    """Return the tensors of a file by its header alone.

    Args:
        read: Returns the file's bytes from a first to before a last.
        num_bytes: Size of the file.

    Raises:
        ValueError: It is not a safetensors file of that size; one line.
    """
    first = 8 + (int.from_bytes(read(0, 8), "little") if num_bytes >= 8 else num_bytes)
    if first > min(num_bytes, 8 + _LARGEST_HEADER):
        raise ValueError(f"not a whole safetensors file (its header ends at byte {first} of {num_bytes})")
    try:
        header = json.loads(read(8, first))
        header.pop("__metadata__", None)
        entries = {name: _entry(values, first) for name, values in header.items()}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError("not a whole safetensors file (its header is damaged)") from error
    stop = first
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.start != stop or entry.stop - stop != math.prod(entry.shape) * entry.dtype.itemsize:
            raise ValueError(f"not a whole safetensors file ({quoted(name)} is not where it should be)")
        stop = entry.stop
    if stop != num_bytes:
        raise ValueError(f"not a whole safetensors file (its tensors end at byte {stop} of {num_bytes})")
    return entries


def _entry(values: dict[str, Any], first: int) -> Entry:
    """Return an entry of a header.

    Args:
        values: Its JSON.
        first: Position of the first tensor in the file.
    """
    shape, offsets = values["shape"], values["data_offsets"]
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, *offsets)):
        raise ValueError(f"{shape!r:.80} and {offsets!r:.80} are not a shape and offsets")
    if len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"{len(shape)} dimensions are too many")
    start, stop = offsets
    return Entry(_DTYPES[values["dtype"]], tuple(shape), first + start, first + stop)


def _reason(error: Exception) -> str:
    """Return what is wrong; torch's own errors are pages long and off the point."""
    is_of_file = isinstance(error, SafetensorError | OSError | ValueError)
    return str(error) if is_of_file else "damaged: a shape or a type that no tensor can have"


def _check(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{quoted(name)} has type {tensor.dtype}, which has no arithmetic")
        if tensor.dim() > MOST_DIMENSIONS:
            raise ValueError(f"{quoted(name)} has {tensor.dim()} dimensions; at most {MOST_DIMENSIONS} are allowed")


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors on the CPU that share no memory, as safetensors requires."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        storage = copy.untyped_storage().data_ptr()
        plain[name] = copy.clone() if storage in seen else copy
        seen.add(storage)
    return plain
