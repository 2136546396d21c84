"""A safetensors file, written as openly as the process writes files, and read with checks."""

import stat
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def save(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors of any device; equal tensors and metadata give equal bytes.

    Args:
        path: The file.
        tensors: Tensors by name; shared ones are written once a name.
        metadata: At most one key: safetensors writes several in random order.

    Raises:
        OSError: The file cannot be written.
        SafetensorError: The same.
    """
    assert len(metadata) <= 1, metadata
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)  # the process's umask cannot be read without setting it, for all threads
    save_file(_plain(tensors), path, metadata)
    path.chmod(mode)  # safetensors makes files that only their owner may read


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return all tensors, on the CPU, and the metadata.

    Raises:
        ValueError: The file is missing, cut short or no safetensors file.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from error


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors on the CPU of which no two share memory, as safetensors wants them."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        storage = copy.untyped_storage().data_ptr()
        plain[name] = copy.clone() if storage in seen else copy
        seen.add(storage)
    return plain
