"""Listing of an image folder: a folder per class, many listed at once, local or on a storage.

    train/CLASS/....JPEG          also in folders below CLASS, as in torchvision's ImageFolder
    val/CLASS/....JPEG            or validation/, test/, valid/, dev/, testing/; upper case, too

Names that begin with a dot are hidden and ignored. Links that lead out of a fence are refused. Names are bytes, because
file systems have no encoding.
"""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow.fs as pafs

from inq_ray.data.decode.pillow import EXTENSIONS
from inq_ray.data.image_set import Split
from inq_ray.files.shown import counted
from inq_ray.storage.address import Location
from inq_ray.storage.fence import Fence
from inq_ray.storage.retry import retry

_EXTENSIONS = tuple(map(str.encode, EXTENSIONS))
# The first that exists is used.
SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("val", "validation", "test", "valid", "dev", "testing"),
}
UNKNOWN_SIZE = -1
_NUM_NAMED = 3


class Entry(NamedTuple):
    """A file or folder in a folder.

    Attributes:
        path: Path relative to the listed folder.
        is_folder: Whether it is a folder; links are followed, and a dangling link counts as a file.
        size: Size of a file, bytes.
        stamp: For a local folder: changes when a file in it is added, removed or renamed.
    """

    path: bytes
    is_folder: bool
    size: int
    stamp: str = ""


def is_image(path: bytes) -> bool:
    """Return whether a file is an image by its name."""
    return path.lower().endswith(_EXTENSIONS)


def scan(folder: Location, *, recursive: bool = False, fence: Fence | None = None) -> list[Entry]:
    """Return the contents of a folder without hidden files and folders, sorted by folder, then by name.

    Raises:
        ValueError: The folder does not exist or cannot be listed; a folder or image is a link out of the fence.
    """
    if folder.is_local:
        entries = retry(lambda: list(_scan_here(os.fsencode(folder.path), recursive, fence)), folder.name)
    else:
        entries = [_from_storage(folder, info) for info in folder.list(recursive=recursive)]
        entries = [entry for entry in entries if not _is_hidden(entry.path)]
    return sorted(entries, key=lambda entry: os.path.split(entry.path))


def find_classes(folder: Location, fence: Fence | None = None) -> tuple[list[Entry], int]:
    """Return the folders of a split's classes, sorted, and the number of other files, which belong to no class.

    Raises:
        ValueError: There are no folders, or the split cannot be listed; one is a link out of the fence.
    """
    entries = scan(folder, fence=fence)
    classes = [entry for entry in entries if entry.is_folder]
    if classes:
        return classes, len(entries) - len(classes)
    images = [entry.path for entry in entries if is_image(entry.path)]
    there = f"only {counted(len(images), 'image')} directly in it ({some(images)})" if images else "it has no folders"
    raise ValueError(
        f"{folder.name} has no classes, {there}: put the images of each class into a folder, {folder.name}/CLASS/"
    )


def some(names: Iterable[bytes]) -> str:
    """Return the first few names, for a message."""
    words = [name.decode("utf-8", "backslashreplace") for name in names]
    return ", ".join(words[:_NUM_NAMED]) + ", ..." * (len(words) > _NUM_NAMED)


def find_splits(root: Location, fence: Fence | None = None) -> dict[Split, str]:
    """Return the name of each split's folder; empty if it is not an image folder.

    Raises:
        ValueError: The folder does not exist or cannot be listed; a split is a link out of the fence.
    """
    if root.lists_folders:
        names = [os.fsdecode(entry.path) for entry in scan(root) if entry.is_folder]
    else:
        names = [name for names in SPLIT_FOLDERS.values() for name in names if root.join(name).exists()]
    present = {name.lower(): name for name in names} | {name: name for name in names}
    found = {split: [present[name] for name in names if name in present] for split, names in SPLIT_FOLDERS.items()}
    splits = {split: names[0] for split, names in found.items() if names}
    if fence:
        for name in splits.values():
            fence.check(root.join(name).path)
    return splits


def stamp_of(folder: Location) -> str:
    """Return the stamp of a local folder, as in `Entry`; "" if it does not exist."""
    try:
        return _stamp(os.stat(folder.path))
    except OSError:
        return ""


def _scan_here(folder: bytes, recursive: bool, fence: Fence | None) -> Iterator[Entry]:
    """Yield the contents of a local folder; links are followed, but not into a folder that contains them."""
    waiting: list[tuple[bytes, frozenset[tuple[int, int]]]] = [(b"", frozenset())]
    while waiting:
        start, above = waiting.pop()
        for entry in os.scandir(os.path.join(folder, start)):
            if entry.name.startswith(b"."):
                continue
            path = os.path.join(start, entry.name)
            is_folder = entry.is_dir()
            # The listing itself marks links, so other entries cost nothing more.
            if fence and entry.is_symlink() and (is_folder or is_image(path)):
                fence.check(os.path.join(os.fsdecode(folder), os.fsdecode(path)))
            if not is_folder:
                yield Entry(path, False, _size(entry))
                continue
            facts = entry.stat()
            identity = (facts.st_dev, facts.st_ino)
            yield Entry(path, True, 0, _stamp(facts))
            if recursive and identity not in above:
                waiting.append((path, above | {identity}))


def _stamp(facts: os.stat_result) -> str:
    return f"{facts.st_mtime_ns} {facts.st_ino}"


def _size(entry: os.DirEntry[bytes]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # a dangling link: reading it reports the error
        return UNKNOWN_SIZE


def _from_storage(folder: Location, info: pafs.FileInfo) -> Entry:
    is_folder = info.type == pafs.FileType.Directory
    size = UNKNOWN_SIZE if info.size is None else int(info.size)
    return Entry(os.fsencode(folder.relative(info)), is_folder, 0 if is_folder else size)


def _is_hidden(path: bytes) -> bool:
    return path.startswith(b".") or b"/." in path
