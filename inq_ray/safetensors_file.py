"""Safetensors files: written with the process's usual permissions, and checked when read."""

import stat
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
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
# Types smaller than a byte, and scale-only types, have no arithmetic.
DTYPES = frozenset(
    (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.bool, torch.complex64),
        *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
    )
)
MOST_DIMENSIONS = 64  # torch's own limit


def save(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors of any device; equal tensors and metadata give equal bytes.

    Args:
        path: Path of the file.
        tensors: Tensors by name; a shared tensor is written once per name.
        metadata: At most one key, because safetensors writes several in random order.

    Raises:
        OSError: The file cannot be written.
        SafetensorError: The file cannot be written.
    """
    assert len(metadata) <= 1, metadata
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)  # the umask cannot be read without setting it for all threads
    save_file(_plain(tensors), path, metadata)
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


def decode(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a file's contents, on the CPU.

    Raises:
        ValueError: The bytes are not a complete safetensors file; one line.
    """
    try:
        tensors = safetensors.torch.load(data)
        _check(tensors)
    except _DAMAGED as error:
        raise ValueError(one_line(f"not a whole safetensors file ({_reason(error)})")) from error
    return tensors


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
