"""The version of what computes: two programs of the same version make the same bits of the same input."""

import hashlib
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
import torchvision

import inq_ray

# What decides bits. The rest shows, stores, or starts.
_ROOMS = ("core", "data", "distributed", "models", "scheduler.py", "training")

# Those that decode and resize images, and make networks.
_LIBRARIES = ("pillow", "turbojpeg", "timm")


@cache
def numerics_version() -> str:
    """Hex digest of our source, of the libraries' versions, and of the kind of this machine's processor."""
    hasher = hashlib.sha256()
    root = Path(inq_ray.__file__).parent
    for room in _ROOMS:
        path = root / room
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            hasher.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    versions = [torch.__version__, torchvision.__version__, np.__version__, platform.python_version()]
    versions += [_version(library) for library in _LIBRARIES]
    kind = (platform.machine(), torch.backends.cpu.get_cpu_capability())
    hasher.update(repr((versions, kind)).encode())
    return hasher.hexdigest()


def _version(library: str) -> str | None:
    """Of a library that need not be installed."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
