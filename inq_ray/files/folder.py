"""Folders that are either complete or missing, even if a process is killed or the power fails.

A folder is filled, and deleted, under a hidden name: ".NAME~UNIQUE.partial" or ".NAME~UNIQUE.deleted". A killed process
leaves folders of such names, see :func:`leftovers`. Only one process at a time may create or delete folders of one
name, and no name has a tilde.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from inq_ray.files.whole import sync, unique

PARTIAL = ".partial"
DELETED = ".deleted"


def try_writing(folder: Path) -> None:
    """Check that a folder can be created and written to, and undo it.

    A file system may refuse for other reasons than permissions: /proc has no new folders, names are too long, disks
    full.

    Args:
        folder: Absolute path; need not exist.

    Raises:
        OSError: It cannot.
    """
    above = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    inside = Path(tempfile.mkdtemp(prefix=".inq_ray-", suffix=PARTIAL, dir=above)) / folder.relative_to(above)
    try:
        inside.mkdir(parents=True, exist_ok=True)
        (inside / "trial").touch()
        (inside / "trial").unlink()
    finally:
        for each in (inside, *inside.parents[: len(inside.parents) - len(above.parents) - 1]):
            with contextlib.suppress(OSError):
                each.rmdir()


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files, whole or not at all. An existing folder is replaced; parent folders are created.

    Args:
        folder: Path of the folder.
        files: Contents by name, in the order in which they are written.

    Raises:
        OSError: The folder cannot be written; an existing one stays.
    """
    partial = _hidden(folder, PARTIAL)
    try:
        partial.mkdir(parents=True)
        for name, data in files.items():
            _write_file(partial / name, data)
        sync(partial)
        rename_folder(partial, folder)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the space
        raise


def rename_folder(partial: Path, folder: Path) -> None:
    """Give a complete folder its name, replacing an existing one. If killed in between, it keeps its hidden name.

    Raises:
        OSError: The folder cannot be renamed; an existing one stays.
    """
    aside = _hidden(folder, DELETED)
    is_there = folder.exists()
    if is_there:
        folder.rename(aside)
    try:
        partial.rename(folder)
    except OSError:
        if is_there:
            aside.rename(folder)
        raise
    sync(folder.parent)
    if is_there:
        shutil.rmtree(aside, ignore_errors=True)


def delete_folder(folder: Path) -> None:
    """Delete a folder, if it exists, and leftovers of earlier deletions. Half a folder never has the name.

    Raises:
        OSError: Not everything can be deleted.
    """
    if folder.exists():
        folder.rename(_hidden(folder, DELETED))
    for left in leftovers(folder.parent, folder.name):
        if left.name.endswith(DELETED):
            shutil.rmtree(left)


def leftovers(parent: Path, name: str | None = None) -> list[Path]:
    """Return the leftovers of killed processes in a folder: those of one name, or all."""
    start = "." if name is None else f".{name}~"
    if not parent.is_dir():
        return []
    found = [path for path in parent.iterdir() if path.name.startswith(start)]
    return sorted(path for path in found if path.name.endswith((PARTIAL, DELETED)) and path.is_dir())


def _hidden(folder: Path, ending: str) -> Path:
    return folder.with_name(f".{folder.name}~{unique()}{ending}")


def _write_file(path: Path, data: bytes) -> None:
    with path.open("wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
