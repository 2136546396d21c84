"""Image files of a split in Parquet, read on demand by row group."""

import ctypes
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inq_ray.data.encoded import Encoded
from inq_ray.data.parquet.access import read_groups
from inq_ray.data.parquet.files import NO_BYTES, Shard, image_bytes
from inq_ray.data.parquet.labels import numbers
from inq_ray.storage.address import Location

# Most bytes that one process holds of a split. ImageNet needs less: 8192 images of 110 kB, over all loader workers of
# a rank, are 0.9 GB when their windows begin, and half of that on average.
HELD_BYTES = 2 * 2**30
_NUM_THREADS = 4
# If no image of a row group was used in this many reads, and as many images, the rest is not needed in this epoch. In a
# window of 512 images in groups of 100, with 16 lanes, a group is used at every 80th image on average, and at least at
# every 1000th; with large batches, at every 16th read.
_IDLE_READS = 32
_IDLE_IMAGES = 4096
# Bytes handed out before the heap returns free memory to the system.
_TRIM_BYTES = 1 << 28
# This many images in the order of the file are not a coincidence.
_SHORTEST_SCAN = 8

# Images of one row group by index.
_Images = dict[int, Encoded]


class _File(NamedTuple):
    """Facts about a shard that are needed to read from it."""

    location: Location
    footer: str
    image_path: str
    label_column: str


class ParquetReader:
    """A split's image files by index: the rows of the shards, in the order of their names.

    A row group is read when one of its images is requested. Its other images are held until they are requested; each is
    handed out once, and read again if it is requested again. Memory is that of the row groups in use, at most
    `held_bytes` (and the groups being read); the least recently used ones are dropped first, and those unused for a
    while. In training these are the groups of the windows of this process's lanes (see `data/order/groups.py`).
    Validation reads samples in the order of the files, and nothing is held.

    Pickling keeps two arrays with a number per row group, and no image. Files are opened when they are read.

    Args:
        shards: The files.
        num_classes: Number of classes; labels must be smaller.
        class_names: Names of all classes, in order; needed if labels are texts.
        held_bytes: Most bytes to hold.

    Attributes:
        groups: int64 [G + 1], boundaries of the row groups.

    Raises:
        ValueError: A row group is larger than `held_bytes`.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        num_classes: int,
        *,
        class_names: Sequence[str] = (),
        held_bytes: int = HELD_BYTES,
    ) -> None:
        for shard in shards:
            if shard.largest_group > held_bytes:
                raise ValueError(
                    f"{shard.file.name} has a row group of {shard.largest_group / 2**30:.1f} GiB, more than the "
                    f"{held_bytes / 2**30:.1f} GiB that a process may hold: rewrite it with groups of about 100 images"
                )
        self._files = [_File(shard.file, shard.footer, shard.image_path, shard.label_column) for shard in shards]
        self._num_classes = num_classes
        self._class_names = tuple(class_names) if any(shard.has_names for shard in shards) else ()
        self._first_groups = np.cumsum([0, *(len(shard.group_rows) for shard in shards)])
        rows = [rows for shard in shards for rows in shard.group_rows]
        self.groups: NDArray[np.int64] = np.cumsum([0, *rows], dtype=np.int64)
        self._held = _Held(held_bytes)
        self._num_gone = 0

    def __len__(self) -> int:
        return int(self.groups[-1])

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but the held images."""
        return {**self.__dict__, "_held": _Held(self._held.limit), "_num_gone": 0}

    def read(self, samples: NDArray[np.int64]) -> list[Encoded]:
        """Read some images, in order; see :meth:`inq_ray.data.encoded.Reader.read`.

        Raises:
            ValueError: A file cannot be read, is damaged, or has changed.
        """
        unique = np.unique(samples)
        groups = np.searchsorted(self.groups, unique, side="right") - 1
        wanted = {int(group): unique[groups == group].tolist() for group in np.unique(groups)}
        is_scan = len(samples) >= _SHORTEST_SCAN and bool((np.diff(samples) > 0).all())
        self._held.count(len(samples))
        found: dict[int, Encoded] = {}
        for group, images in self._images(wanted):
            found.update((sample, images.pop(sample)) for sample in wanted[group])
            if not is_scan:
                self._held.put(group, images)
        self._num_gone += sum(len(encoded.data or b"") for encoded in found.values())
        if self._num_gone > _TRIM_BYTES:
            self._num_gone = 0
            _trim()
        return [found[sample] for sample in samples.tolist()]

    def _images(self, wanted: dict[int, list[int]]) -> Iterator[tuple[int, _Images]]:
        """Yield the row groups' images, held ones first; the others are read, several at a time."""
        missing = []
        for group, samples in wanted.items():
            images = self._held.pop(group)
            if images.keys() >= set(samples):
                yield group, images
            else:
                missing.append(group)
        if len(missing) == 1:
            yield missing[0], self._read(missing[0])
        for start in range(0, len(missing), _NUM_THREADS) if len(missing) > 1 else ():
            part = missing[start : start + _NUM_THREADS]
            with ThreadPoolExecutor(len(part)) as pool:
                yield from zip(part, pool.map(self._read, part), strict=True)

    def _read(self, group: int) -> _Images:
        """Read a row group."""
        number = int(np.searchsorted(self._first_groups, group, side="right")) - 1
        file, first_group = self._files[number], int(self._first_groups[number])
        columns = [file.image_path, file.label_column]
        table = read_groups(file.location, file.footer, [group - first_group], columns)
        (column,) = (name for name in table.column_names if name != file.label_column)  # has dots in flattened tables
        blobs = image_bytes(table.column(column).chunks)
        labels = numbers(table.column(file.label_column), self._class_names).to_pylist()
        sample = int(self.groups[group])
        row = sample - int(self.groups[first_group])
        return {
            sample + place: self._encoded(f"{file.location.name}, row {row + place}", data, label)
            for place, (data, label) in enumerate(zip(blobs, labels, strict=True))
        }

    def _encoded(self, name: str, data: bytes | None, label: int | None) -> Encoded:
        if data is None:
            return Encoded(name, None, -1, NO_BYTES)
        if label is None:
            return Encoded(name, None, -1, "there is no label")
        if not 0 <= label < self._num_classes:
            return Encoded(name, None, -1, f"label {label} is not within 0 to {self._num_classes - 1}")
        return Encoded(name, data, label)


def _trim() -> None:
    """Return freed memory to the system (glibc): many short-lived images fragment the heap, which would grow."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class _Begun(NamedTuple):
    """Unused images of a row group, and when the group was last used."""

    images: _Images
    num_bytes: int
    read: int
    image: int


class _Held:
    """Unused images of row groups, the most recently used last; at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.num_bytes = 0
        self._groups: OrderedDict[int, _Begun] = OrderedDict()
        self._num_reads = 0
        self._num_images = 0

    def count(self, num_images: int) -> None:
        """Count a read, and drop groups that have been idle for too long."""
        self._num_reads += 1
        self._num_images += num_images
        while self._groups and self._is_idle(next(iter(self._groups.values()))):
            self.pop(next(iter(self._groups)))

    def pop(self, group: int) -> _Images:
        """Return the unused images of a row group, and stop holding them."""
        begun = self._groups.pop(group, None)
        if begun is None:
            return {}
        self.num_bytes -= begun.num_bytes
        return begun.images

    def put(self, group: int, images: _Images) -> None:
        """Hold the unused images of a row group, and drop other groups if the limit is exceeded."""
        if not images:
            return
        num_bytes = sum(len(image.data or b"") for image in images.values())
        self._groups[group] = _Begun(images, num_bytes, self._num_reads, self._num_images)
        self.num_bytes += num_bytes
        while self.num_bytes > self.limit:
            self.pop(next(iter(self._groups)))

    def _is_idle(self, begun: _Begun) -> bool:
        return self._num_reads - begun.read > _IDLE_READS and self._num_images - begun.image > _IDLE_IMAGES
