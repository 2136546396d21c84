"""Folders that are whole or not there, whatever is killed and whenever the power goes.

A folder is filled, and deleted, under a hidden name: ".NAME~UNIQUE.partial" or ".NAME~UNIQUE.deleted". What a killed
process leaves has such a name, see :func:`leftovers`. One process at a time makes and deletes folders of one name, and
no name has a tilde.
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
    """Find out whether a folder can be made and written to; afterwards all is as it was.

    Its file system may refuse by more than permissions: /proc takes no folders, names may be too long, a disk is full.

    Args:
        folder: its absolute path, there or not.

    Raises:
        OSError: it cannot.
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
    """Write a folder of files, whole or not at all; what is there is replaced, folders above it are made.

    Args:
        folder: its path.
        files: contents by name, in the order in which they are written.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    partial = _hidden(folder, PARTIAL)
    try:
        partial.mkdir(parents=True)
        for name, data in files.items():
            _write_file(partial / name, data)
        sync(partial)
        rename_folder(partial, folder)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the room
        raise


def rename_folder(partial: Path, folder: Path) -> None:
    """Give a whole folder its name; what has it is replaced. Killed in between, it keeps its hidden name.

    Raises:
        OSError: it cannot be renamed; what was there stays.
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
    """Delete a folder, there or not, and what was left when it was deleted before: half a folder never has its name.

    Raises:
        OSError: not all of it can be deleted.
    """
    if folder.exists():
        folder.rename(_hidden(folder, DELETED))
    for left in leftovers(folder.parent, folder.name):
        if left.name.endswith(DELETED):
            shutil.rmtree(left)


def leftovers(parent: Path, name: str | None = None) -> list[Path]:
    """Return what killed processes have left in a folder, of one name or, without it, of any."""
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
