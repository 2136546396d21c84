"""Fingerprint of the program: if it is equal, the same input gives the same bits."""

import ast
import hashlib
import platform
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
import torchvision

import inq_ray

# Packages that affect bits. New files and folders in them count, unless they are listed below.
_DECIDE = ("core", "data", "distributed", "models", "scheduler.py", "training")

# Parts of these packages that affect no bit of a stage's end, and why.
_DECIDE_NOTHING = {
    "data/folder/cache.py": "finds an existing index",
    "data/node_cache.py": "stores what others have computed",
    "data/parquet/writer.py": "writes data sets, whose fingerprint is in the key",
    "models/weights/download.py": "downloads weights, whose digest is in the key",
    "models/layers.py": "formats a table",
    "models/recognition.py": "formats a message",
    "training/checkpoint": "restores the bits that it was given",
    "training/config": "the values of a configuration are in the key",
    "training/finish.py": "runs after the last stage",
    "training/flags": "make a configuration",
    "training/report": "prints",
    "training/run_folder.py": "names files",
    "training/start.py": "decides whether a run starts, not what it computes",
}

# Libraries that decode and resize images, and provide networks.
_LIBRARIES = ("pillow", "turbojpeg", "timm")


@cache
def code_fingerprint() -> str:
    """Return the hex digest of our sources, the libraries' versions, and the kind of this machine's processor."""
    versions = [torch.__version__, torchvision.__version__, np.__version__, platform.python_version()]
    versions += [_version(library) for library in _LIBRARIES]
    kind = (platform.machine(), torch.backends.cpu.get_cpu_capability())
    sources = digest_sources(Path(inq_ray.__file__).parent)
    return hashlib.sha256(repr((sources, versions, kind)).encode()).hexdigest()


def digest_sources(root: Path) -> str:
    """Return the hex digest of the sources that affect bits; comments, docstrings and layout have no effect.

    Args:
        root: Folder of the package ``inq_ray``.
    """
    hasher = hashlib.sha256()
    for file in _files(root):
        tree = _WithoutDocstrings().visit(ast.parse(file.read_bytes()))
        hasher.update(f"{file.relative_to(root).as_posix()}\0{ast.dump(tree)}\0".encode())
    return hasher.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    nothing = {root / name for name in _DECIDE_NOTHING}
    for path in (root / name for name in _DECIDE):
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            if file not in nothing and nothing.isdisjoint(file.parents):
                yield file


class _WithoutDocstrings(ast.NodeTransformer):
    """Removes docstrings, including those of fields: statements that consist of a string."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node


def _version(library: str) -> str | None:
    """Return the version of a library that may not be installed."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
