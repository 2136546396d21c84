"""Index of an image folder: path, size and class of each image, in an Arrow file that a node's processes map.

It is an Arrow IPC file of two record batches, train and test, of path (large_binary, relative to the split's folder),
size (int64) and label (int32); everything else is JSON in the schema's metadata. Mapped memory is shared, so processes
need none of their own for any number of images.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inq_ray.data.decode.pillow import EXTENSIONS
from inq_ray.data.decode.small import Layout, common_layout, is_small, read_layout
from inq_ray.data.folder.listing import Entry, find_classes, find_splits, is_image, scan, some
from inq_ray.data.image_set import Split
from inq_ray.files.shown import counted
from inq_ray.files.whole import whole
from inq_ray.storage.address import Location
from inq_ray.storage.fence import Fence

FORMAT_VERSION = 2
# Listing waits for the storage, not for this machine.
NUM_LISTERS = 32
SPLITS: tuple[Split, Split] = ("train", "test")
# Images per split whose headers are read, spread evenly; all of them if these are small and of one size.
_NUM_PEEKED = 32
_MOST_PEEKED = 200_000
_NUM_AT_ONCE = 4096
_METADATA_KEY = b"inq_ray.folder_index"
_SCHEMA = pa.schema({"path": pa.large_binary(), "size": pa.int64(), "label": pa.int32()})


@dataclass(frozen=True, kw_only=True)
class FolderFacts:
    r"""Facts about an indexed folder.

    Attributes:
        class_names: Names of the classes' folders, in order; bytes that are not UTF-8 are written \xff.
        folders: Name of each split's folder; missing splits are not in it.
        num_images: Number of images per split, 0 if it is missing.
        num_ignored: Files that are not images by their names, or belong to no class.
        num_untested: Classes without test images, if there is a test split.
        fingerprint: SHA-256 over split, path and size of every image.
        stamps: Stamps of folders below those of the classes, by path relative to the root.
        layouts: Layouts of images whose headers were read, some of each split (all, if those are small and of one
            size); only the smallest and the largest, if there are more than two.
    """

    class_names: tuple[str, ...]
    folders: Mapping[Split, str]
    num_images: Mapping[Split, int]
    num_ignored: int
    num_untested: int
    fingerprint: str
    stamps: Mapping[str, str]
    layouts: tuple[Layout, ...]


@dataclass(frozen=True, kw_only=True)
class FolderIndex:
    """An index in a file.

    Attributes:
        path: The file.
        facts: Its metadata.
        rows: Record batches [N] of path, size and label, mapped read-only.
    """

    path: Path
    facts: FolderFacts
    rows: Mapping[Split, Any]


@lru_cache(maxsize=8)
def open_index(path: Path) -> FolderIndex:
    """Map an index; once per process and file.

    Raises:
        ValueError: It is missing, damaged, or of another version.
    """
    try:
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        stated = json.loads((file.schema.metadata or {})[_METADATA_KEY])
        if stated.pop("version") != FORMAT_VERSION or not file.schema.equals(_SCHEMA):
            raise ValueError("it has another version")
        stated |= {
            "class_names": tuple(stated["class_names"]),
            "layouts": tuple(Layout(**layout) for layout in stated["layouts"]),
        }
        rows = {split: file.get_batch(place) for place, split in enumerate(SPLITS)}
        return FolderIndex(path=path, facts=FolderFacts(**stated), rows=rows)
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{path} is not a usable index of images: {error}; remove it") from error


def write_index(path: Path, facts: FolderFacts, rows: Mapping[Split, Any]) -> None:
    """Write an index under a temporary name, and rename it, so that a file of this name is always complete.

    Raises:
        ValueError: The file cannot be written.
    """
    metadata = {_METADATA_KEY: json.dumps({"version": FORMAT_VERSION, **asdict(facts)})}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = _SCHEMA.with_metadata(metadata)
        with whole(path) as beside, beside.open("wb") as file, pa.ipc.new_file(file, schema) as writer:
            for split in SPLITS:
                writer.write_batch(rows[split])
    except OSError as error:
        raise ValueError(
            f"cannot write the index of images to {path.parent}: {error.strerror}; "
            "use a writable folder with enough space"
        ) from error


def list_folder(root: Location, fence: Fence | None = None) -> tuple[FolderFacts, dict[Split, Any]]:
    """List a folder of images.

    Args:
        root: The folder.
        fence: Links that lead out of it are refused.

    Returns:
        Facts about the folder, and the rows of each split as in `FolderIndex`.

    Raises:
        ValueError: The folder has another layout, a class of train has no images, a class of test is not in train, a
            link leads out of the fence, or the storage fails; one line.
    """
    folders = find_splits(root, fence)
    if not folders:
        there = some(entry.path for entry in scan(root) if entry.is_folder) or "none"
        raise ValueError(
            f"{root.name} has no folder train, val, validation or test (its folders: {there}): "
            "pass the folder that contains train/CLASS/ and val/CLASS/"
        )
    classes: list[bytes] = []
    parts: dict[Split, _Part] = {}
    with ThreadPoolExecutor(NUM_LISTERS) as pool:
        for split, name in folders.items():
            folder = root.join(name)
            found, num_beside = find_classes(folder, fence)
            names = [entry.path for entry in found]
            classes = classes or names
            _check_known(folder, names, classes)
            parts[split] = _list_split(folder, names, classes, num_beside, pool, fence)
            _check_full(split, folder, classes, parts[split].rows)
        rows = {split: parts[split].rows if split in parts else _combine([]) for split in SPLITS}
        layouts = _layouts({split: root.join(name) for split, name in folders.items()}, rows, pool, fence)
    facts = FolderFacts(
        class_names=tuple(name.decode("utf-8", "backslashreplace") for name in classes),
        folders=folders,
        num_images={split: rows[split].num_rows for split in SPLITS},
        num_ignored=sum(part.num_ignored for part in parts.values()),
        num_untested=len(classes) - _num_classes(rows["test"]) if "test" in folders else 0,
        fingerprint=_fingerprint(rows),
        stamps={
            f"{folders[split]}/{os.fsdecode(entry.path)}": entry.stamp
            for split, part in parts.items()
            for entry in part.folders
            if entry.stamp
        },
        layouts=layouts,
    )
    return facts, rows


def _layouts(
    folders: Mapping[Split, Location], rows: Mapping[Split, Any], pool: Executor, fence: Fence | None
) -> tuple[Layout, ...]:
    """Return the layouts of images; see `FolderFacts`. Unreadable images are left out."""

    def read(folder: Location, path: bytes) -> Layout | None:
        try:
            return read_layout(folder.join(os.fsdecode(path)).read(fence=fence))
        except ValueError:
            return None

    def some(most: int) -> set[Layout]:
        found: set[Layout | None] = set()
        for split, folder in folders.items():
            paths = rows[split].column("path")
            places = np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths)), dtype=np.int64))
            for start in range(0, len(places), _NUM_AT_ONCE):
                part = paths.take(pa.array(places[start : start + _NUM_AT_ONCE])).to_pylist()
                found.update(pool.map(partial(read, folder), part))
        return {layout for layout in found if layout is not None}

    found = some(_NUM_PEEKED)
    common = common_layout(found)
    if common is not None and is_small(common):
        found = some(_MOST_PEEKED)
    ordered = sorted(found, key=lambda layout: (layout.height * layout.width, layout.height, layout.channels))
    return tuple(ordered if len(ordered) < 3 else (ordered[0], ordered[-1]))


class _Part(NamedTuple):
    """Part of a listing, as Arrow rows, which take a tenth of the memory of Python objects."""

    rows: Any
    folders: list[Entry]
    num_ignored: int


def _list_split(
    folder: Location, names: list[bytes], classes: list[bytes], num_beside: int, pool: Executor, fence: Fence | None
) -> _Part:
    """List the folders of a split's classes on the pool's threads."""
    number = {name: label for label, name in enumerate(classes)}
    parts = list(pool.map(partial(_list_class, folder, fence), names, [number[name] for name in names]))
    return _Part(
        rows=_combine([part.rows for part in parts]),
        folders=[entry for part in parts for entry in part.folders],
        num_ignored=num_beside + sum(part.num_ignored for part in parts),
    )


def _list_class(folder: Location, fence: Fence | None, name: bytes, label: int) -> _Part:
    """List a class, in torchvision's order: by folder, then by name."""
    entries = scan(folder.join(os.fsdecode(name)), recursive=True, fence=fence)
    images = [entry for entry in entries if not entry.is_folder and is_image(entry.path)]
    folders = [entry._replace(path=name + b"/" + entry.path) for entry in entries if entry.is_folder]
    paths = [name + b"/" + entry.path for entry in images]
    labels = np.full(len(images), label, np.int32)
    rows = pa.record_batch([paths, [entry.size for entry in images], labels], schema=_SCHEMA)
    return _Part(rows, folders, len(entries) - len(images) - len(folders))


def _combine(batches: list[Any]) -> Any:
    """Return one record batch of all rows."""
    table = pa.Table.from_batches(batches, _SCHEMA).combine_chunks()
    return table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], _SCHEMA)


def _check_known(folder: Location, names: list[bytes], classes: list[bytes]) -> None:
    """Refuse test classes that do not occur in training."""
    strangers = sorted(set(names) - set(classes))
    if strangers:
        raise ValueError(
            f"{folder.name} has {counted(len(strangers), 'class')} that train does not have ({some(strangers)}): "
            "a class must have the same folder name in both"
        )


def _check_full(split: Split, folder: Location, classes: list[bytes], rows: Any) -> None:
    """Refuse classes without training images, and a test split without any images."""
    full = set(pc.unique(rows.column("label")).to_pylist())
    empty = [name for label, name in enumerate(classes) if label not in full]
    if empty and (split == "train" or not full):
        raise ValueError(
            f"{folder.name} has {counted(len(empty), 'class')} without images ({some(empty)}): add images "
            f"({', '.join(EXTENSIONS)}), or remove the folders"
        )


def _num_classes(rows: Any) -> int:
    return len(pc.unique(rows.column("label")))


def _fingerprint(rows: Mapping[Split, Any]) -> str:
    """Return a digest of paths and sizes, the same on every machine and for any order of listing."""
    digest = hashlib.sha256()
    for split in SPLITS:
        paths, sizes = rows[split].column("path"), rows[split].column("size")
        _, offsets, data = paths.buffers()
        ends = np.frombuffer(offsets, np.int64)[paths.offset : paths.offset + len(paths) + 1] if len(paths) else [0]
        digest.update(f"{split} {len(paths)}\n".encode())
        digest.update(np.diff(ends).astype("<i8").data)
        if len(paths):
            digest.update(memoryview(data)[ends[0] : ends[-1]])
        digest.update(sizes.to_numpy().astype("<i8").data)
    return digest.hexdigest()
