"""What lies in a folder of images: a folder for each class, listed many at once, on this machine or on a storage.

    train/CLASS/....JPEG          also in folders below CLASS, as torchvision's ImageFolder reads them
    val/CLASS/....JPEG            or validation/, test/, valid/, dev/, testing/; in upper case, too

What begins with a dot is hidden, and no data. Links that lead out of a fence are refused where they are met. Names
are bytes: file systems know no encoding.
"""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow.fs as pafs

from inq_ray.data.decode.pillow import EXTENSIONS
from inq_ray.data.image_set import Split
from inq_ray.storage.address import Location
from inq_ray.storage.fence import Fence
from inq_ray.storage.retry import retry

_EXTENSIONS = tuple(map(str.encode, EXTENSIONS))
# The first that exists is the split.
SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("val", "validation", "test", "valid", "dev", "testing"),
}
UNKNOWN_SIZE = -1
_NUM_NAMED = 3


class Entry(NamedTuple):
    """A file or folder within a folder.

    Attributes:
        path: From the folder that was listed.
        is_folder: Links are what they lead to; one that leads nowhere is a file.
        size: Bytes of a file.
        stamp: Of a folder of this machine: changes when a file in it comes, goes or is renamed.
    """

    path: bytes
    is_folder: bool
    size: int
    stamp: str = ""


def is_image(path: bytes) -> bool:
    """Return whether a file is an image by its name."""
    return path.lower().endswith(_EXTENSIONS)


def scan(folder: Location, *, recursive: bool = False, fence: Fence | None = None) -> list[Entry]:
    """Return what is in a folder, hidden files and folders left out, sorted by folder, then by name.

    Raises:
        ValueError: There is no such folder, or it cannot be listed; a folder or image is a link out of the fence.
    """
    if folder.is_local:
        entries = retry(lambda: list(_scan_here(os.fsencode(folder.path), recursive, fence)), folder.name)
    else:
        entries = [_from_storage(folder, info) for info in folder.list(recursive=recursive)]
        entries = [entry for entry in entries if not _is_hidden(entry.path)]
    return sorted(entries, key=lambda entry: os.path.split(entry.path))


def find_classes(folder: Location, fence: Fence | None = None) -> tuple[list[Entry], int]:
    """Return the folders of a split's classes, sorted, and the number of files beside them, which are of no class.

    Raises:
        ValueError: There are none, or the split cannot be listed; one is a link out of the fence.
    """
    entries = scan(folder, fence=fence)
    classes = [entry for entry in entries if entry.is_folder]
    if classes:
        return classes, len(entries) - len(classes)
    images = [entry.path for entry in entries if is_image(entry.path)]
    there = f"{len(images)} images lie in it directly ({some(images)})" if images else "it has no folders"
    raise ValueError(
        f"{folder.name} has no classes, {there}: put the images of each class into a folder, {folder.name}/CLASS/"
    )


def some(names: Iterable[bytes]) -> str:
    """Return the first names of some, for a message."""
    words = [name.decode("utf-8", "backslashreplace") for name in names]
    return ", ".join(words[:_NUM_NAMED]) + ", ..." * (len(words) > _NUM_NAMED)


def find_splits(root: Location, fence: Fence | None = None) -> dict[Split, str]:
    """Return the name of the folder of each split that there is; nothing where it is no folder of images.

    Raises:
        ValueError: There is no such folder, or it cannot be listed; a split is a link out of the fence.
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
    """Return the stamp of a folder of this machine, as in `Entry`; "" if there is none."""
    try:
        return _stamp(os.stat(folder.path))
    except OSError:
        return ""


def _scan_here(folder: bytes, recursive: bool, fence: Fence | None) -> Iterator[Entry]:
    """Yield what is in a folder of this machine; links are followed, but not into a folder that they lie in."""
    waiting: list[tuple[bytes, frozenset[tuple[int, int]]]] = [(b"", frozenset())]
    while waiting:
        start, above = waiting.pop()
        for entry in os.scandir(os.path.join(folder, start)):
            if entry.name.startswith(b"."):
                continue
            path = os.path.join(start, entry.name)
            is_folder = entry.is_dir()
            # The listing itself says what is a link: only those cost more.
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
    except FileNotFoundError:  # a link that leads nowhere: whoever reads it is told
        return UNKNOWN_SIZE


def _from_storage(folder: Location, info: pafs.FileInfo) -> Entry:
    is_folder = info.type == pafs.FileType.Directory
    size = UNKNOWN_SIZE if info.size is None else int(info.size)
    return Entry(os.fsencode(folder.relative(info)), is_folder, 0 if is_folder else size)


def _is_hidden(path: bytes) -> bool:
    return path.startswith(b".") or b"/." in path
