"""Image folders for tests."""

import os
import time
from collections.abc import Mapping
from pathlib import Path


def make_folder(root: Path, files: Mapping[str, bytes | None]) -> Path:
    """Write files by their paths from `root`; those of None are folders."""
    for name, data in files.items():
        path = root / name
        (path if data is None else path.parent).mkdir(parents=True, exist_ok=True)
        if data is not None:
            path.write_bytes(data)
    return root


def make_stable(root: Path) -> None:
    """Give every folder a time of its own, some minutes ago: an index of it is worth keeping."""
    for number, (folder, _, _) in enumerate(sorted(os.walk(root))):
        then = time.time() - 1000 + number
        os.utime(folder, (then, then))
