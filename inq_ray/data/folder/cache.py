"""Cache of indexes of image folders: made once per node, and used again while the folder is unchanged.

Locally, folder times show changes: when a file is added, removed or renamed, the time of its folder changes. An index
is named by the names and times of the splits' and classes' folders, and used without listing while these are the same
(a file overwritten in place is not noticed). Times are not trusted if they prove nothing: for folders changed within
the last moments, and on file systems that give all folders the same time, such as mounted buckets.

A storage has no such times: the first process of a node lists it, and processes that started before that ended use the
same index. A process that knows the fingerprint of the run's start uses the index with that fingerprint.

Indexes made with links followed out of the folder have other names than those made within a fence.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inq_ray.data.folder.index import FORMAT_VERSION, FolderFacts, FolderIndex, list_folder, open_index, write_index
from inq_ray.data.folder.listing import find_splits, scan, stamp_of
from inq_ray.data.node_cache import cache_folder, locked
from inq_ray.files.whole import write_text
from inq_ray.storage.address import Location
from inq_ray.storage.fence import Fence

WAIT_SECONDS = 1800.0
# A folder that changed this recently may change again within the same tick of the file system's clock.
STABLE_SECONDS = 2.0
_DIGITS = 16
_LISTED = "listed"


def find_index(
    root: Location, folder: Path | None = None, fingerprint: str | None = None, *, fence: Fence | None = None
) -> FolderIndex:
    """Return the index of an image folder, listing it only if necessary.

    Args:
        root: The image folder.
        folder: Folder for indexes; default: the cache of this machine. Several nodes may share it.
        fingerprint: Fingerprint that the folder must have, if known.
        fence: Links that lead out of it are refused.

    Returns:
        The index, mapped.

    Raises:
        ValueError: The folder has another layout or fingerprint; a link leads out of the fence; the storage fails; the
            index cannot be written; one line.
        TimeoutError: Another process of this machine has been listing it for too long.
    """
    asked = time.time()
    cache = cache_folder()
    key = _digest(f"{FORMAT_VERSION} {root.root} {root.path}" + (f" within {fence.real}" if fence else ""))
    state = _state(root, fence) if root.is_local else None
    indexes = _Indexes(root, fence, cache if folder is None else folder, f"folder-{key}", state)
    index = indexes.find(fingerprint)
    if index is None:
        record = cache / f"folder-{key}.json"
        with locked(cache / f"folder-{key}.lock", WAIT_SECONDS, f"listing {root.name}"):
            index = indexes.find(fingerprint) or _made_since(asked, record)
            if index is None:
                index = indexes.make()
                write_text(record, json.dumps({"path": str(index.path), "ended": time.time()}))
    if fingerprint not in (None, index.facts.fingerprint):
        counts = " and ".join(f"{num} of {split}" for split, num in index.facts.num_images.items())
        raise ValueError(
            f"{root.name} has other images on this machine ({counts}) than where the run was started: "
            "put the same files on every node, or use a storage that all nodes share"
        )
    return index


@dataclass(frozen=True)
class _Indexes:
    """The indexes of one image folder.

    Attributes:
        root: The image folder.
        fence: Folder that links must not lead out of.
        folder: Folder of the indexes.
        prefix: Prefix of their names.
        state: Digest that changes when the folder does; None if there is none.
    """

    root: Location
    fence: Fence | None
    folder: Path
    prefix: str
    state: str | None

    def find(self, fingerprint: str | None) -> FolderIndex | None:
        """Return an index known to be up to date without listing, if there is one."""
        if self.state is not None:
            found = map(_open, sorted(self.folder.glob(f"{self.prefix}-{self.state}-*.arrow")))
            return next((index for index in found if index and self._has_same_folders(index.facts)), None)
        if fingerprint is not None and not self.root.is_local:
            index = _open(self._path(_LISTED, fingerprint, {}))
            return index if index and index.facts.fingerprint == fingerprint else None
        return None

    def make(self) -> FolderIndex:
        """List the folder, and write its index unless one with the same contents exists."""
        start = time.time()
        facts, rows = list_folder(self.root, self.fence)
        is_stable = all(_is_stable(stamp, start) for stamp in facts.stamps.values())
        path = self._path(self.state if self.state and is_stable else _LISTED, facts.fingerprint, facts.stamps)
        index = _open(path)
        if index is None or index.facts != facts:
            write_index(path, facts, rows)
            index = open_index(path)
        return index

    def _path(self, state: str, fingerprint: str, stamps: Mapping[str, str]) -> Path:
        """Return the index's path. Other contents have another name, so no index is replaced while others read it."""
        contents = _digest(json.dumps([fingerprint, sorted(stamps.items())]))
        return self.folder / f"{self.prefix}-{state}-{contents}.arrow"

    def _has_same_folders(self, facts: FolderFacts) -> bool:
        """Return whether the folders below those of the classes are unchanged."""
        return all(stamp_of(self.root.join(path)) == stamp for path, stamp in facts.stamps.items())


def _state(root: Location, fence: Fence | None) -> str | None:
    """Return a digest of names and times of the folders of splits and classes; None if times cannot be trusted."""
    now = time.time()
    splits = find_splits(root, fence)
    found = {name: stamp_of(root.join(name)) for name in splits.values()}
    classes = {
        f"{name}/{os.fsdecode(entry.path)}": entry.stamp
        for name in splits.values()
        for entry in scan(root.join(name), fence=fence)
        if entry.is_folder
    }
    has_own_times = len({stamp.split()[0] for stamp in classes.values()}) > 1 or len(classes) == 1
    if not has_own_times or not all(_is_stable(stamp, now) for stamp in (found | classes).values()):
        return None
    return _digest(json.dumps(sorted((found | classes).items())))


def _is_stable(stamp: str, now: float) -> bool:
    """Return whether a folder's time is real, and old enough that a later change would show."""
    seconds = int(stamp.split(maxsplit=1)[0]) / 1e9
    return 0 < seconds < now - STABLE_SECONDS


def _made_since(asked: float, record: Path) -> FolderIndex | None:
    """Return the index that another process made while this one waited."""
    if not record.is_file():
        return None
    made = json.loads(record.read_text())
    return _open(Path(made["path"])) if made["ended"] >= asked else None


def _open(path: Path) -> FolderIndex | None:
    """Map an index if a complete one exists."""
    try:
        return open_index(path)
    except ValueError:
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]
