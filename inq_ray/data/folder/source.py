"""Image folders with a folder per class as a data source: torchvision's ImageFolder layout, local or remote.

    train/CLASS/....JPEG
    val/CLASS/....JPEG        or validation/, test/, ...: the first of `SPLIT_FOLDERS` that exists; none = use --holdout

Classes are numbered in the order of their names in train. A class of val that is not in train is an error; a class
without images in val is not. Without train the source can only be tested on.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inq_ray.data.decode.small import Layout, common_layout, is_small
from inq_ray.data.decoded import decode_one, decode_some, decoded_set, fits, size_notes
from inq_ray.data.encoded import Encoded
from inq_ray.data.folder.cache import find_index
from inq_ray.data.folder.index import FORMAT_VERSION, FolderFacts, open_index
from inq_ray.data.folder.listing import SPLIT_FOLDERS, find_splits, is_image, scan, stamp_of
from inq_ray.data.image_set import Images, Samples, SourceInfo, Split
from inq_ray.data.preprocessing import Augmentation, Preprocessing, of_channels
from inq_ray.files.shown import counted
from inq_ray.storage.address import Location
from inq_ray.storage.fence import Fence
from inq_ray.storage.retry import MissingError, UnreadableError

# Per process, for a remote storage: most of the time of a read is waiting.
NUM_READERS = 16
_NUM_PEEKED = 32
_NUM_DECODED = 64
_NUM_NAMED = 3


def is_image_folder(location: Location) -> bool:
    """Return whether a location looks like an image folder rather than Parquet.

    Raises:
        ValueError: The storage fails.
    """
    if location.is_local and not os.path.isdir(location.path):
        return False
    try:
        if splits := find_splits(location):
            return not any(_is_parquet(location.join(name)) for name in splits.values())
        folders = [os.fsdecode(entry.path) for entry in scan(location) if entry.is_folder]
        return any(is_image(entry.path) for name in folders[:1] for entry in scan(location.join(name)))
    except MissingError:
        return False


def _is_parquet(folder: Location) -> bool:
    """Return whether a split's folder contains Parquet instead of classes."""
    if not folder.lists_folders:
        return False
    entries = scan(folder)
    return any(entry.path.endswith(b".parquet") for entry in entries) and not any(entry.is_folder for entry in entries)


class FolderSource:
    """An image folder, read on demand; small images of one size are kept in memory, unless a size is requested.

    Opening one lists the folder, or finds its index; see `inq_ray.data.folder.cache`.

    Args:
        location: The folder.
        preprocessing: Preprocessing that the network expects.
        augmentation: Augmentation for training.
        index_folder: Folder for the index; default: the cache of this machine.
        fingerprint: Fingerprint of the source where the run was started, so that no other data are read, and a storage
            is not listed again.
        follow_links: Whether links in the folder may lead out of it.

    Attributes:
        info: Facts about the data.
        notes: Lines about files that were left out, for the user.

    Raises:
        ValueError: The folder has another layout or fingerprint, or cannot be read; a link leads out of it; one line.
        TimeoutError: Another process of this machine has been listing it for too long.
    """

    def __init__(
        self,
        location: Location,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        index_folder: Path | None = None,
        *,
        fingerprint: str | None = None,
        follow_links: bool = False,
    ) -> None:
        self._location = location
        self._fence = location.fence(follow_links=follow_links)
        self._index = find_index(location, index_folder, fingerprint, fence=self._fence)
        facts = self._index.facts
        layout = common_layout(facts.layouts)
        small = layout if layout and is_small(layout) else None
        channels = preprocessing.channels or (small.channels if small else 3)
        self._may_lose_colors = preprocessing.channels == 1
        self._preprocessing = dataclasses.replace(preprocessing, channels=channels)
        self._augmentation, self._layout = augmentation, None
        if small and fits(small, max(facts.num_images.values())) and not preprocessing.is_sized:
            self._layout = dataclasses.replace(small, channels=channels)
        seen = self._layout or Layout(channels, preprocessing.crop_size, preprocessing.crop_size)
        self.info = SourceInfo(
            name=location.name,
            num_classes=len(facts.class_names),
            class_names=facts.class_names,
            channels=seen.channels,
            height=seen.height,
            width=seen.width,
            num_train=facts.num_images["train"],
            num_test=facts.num_images["test"],
            mean=of_channels(preprocessing.mean, seen.channels),
            std=of_channels(preprocessing.std, seen.channels),
            fingerprint=facts.fingerprint,
            is_streamed=self._layout is None,
        )
        self.notes = _notes(location, facts)
        if self._layout is None:
            self.notes += size_notes(location.name, facts.layouts, preprocessing)

    def split(self, split: Split) -> Images:
        """Return the images of "train" or "test", read on demand, or small ones in memory.

        The latter are mapped read-only from a file that the node's processes share: the first process that needs it
        decodes, the others wait.

        Raises:
            ValueError: There is no such split. For images in memory: one is damaged or of another size; not enough
                space.
            TimeoutError: Another process has been decoding for too long.
        """
        reader = self.reader(split)
        if self._layout is None:
            # Images in memory need none of these imports, which take seconds.
            from inq_ray.data.augment.image_transform import ImageTransform
            from inq_ray.data.encoded_set import EncodedSet

            return EncodedSet(reader, ImageTransform(self._preprocessing, self._augmentation))
        layout = self._layout
        facts = (FORMAT_VERSION, self._location.root, self._location.path, str(reader.index), reader.stamp(), layout)
        return decoded_set(
            f"{split}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}",
            len(reader),
            layout,
            lambda: [reader.labels()],
            lambda pool: reader.decoded(layout, pool, may_lose_colors=self._may_lose_colors),
            self._augmentation,
            self.info.mean,
        )

    def peek(self, split: Split) -> Samples:
        """Read and decode some images of a split; see :meth:`inq_ray.data.image_set.Source.peek`."""
        reader = self.reader(split)
        places = np.unique(np.linspace(0, len(reader) - 1, min(_NUM_PEEKED, len(reader)), dtype=np.int64))
        if self._layout is not None:
            return decode_some(reader.read(places), self._layout, may_lose_colors=self._may_lose_colors)
        return self.split(split).fetch(torch.from_numpy(places), None)

    def reader(self, split: Split) -> "FolderReader":
        """Return the image files of "train" or "test".

        Raises:
            ValueError: There is no such split.
        """
        facts = self._index.facts
        if split not in facts.folders:
            names = " or ".join(f"{name}/" for name in SPLIT_FOLDERS[split][:_NUM_NAMED])
            advice = "; hold out training images instead (--holdout)" if split == "test" else ""
            raise ValueError(f"{self._location.name} has no {split} split: no folder {names} there{advice}")
        folder = self._location.join(facts.folders[split])
        return FolderReader(folder, self._index.path, split, facts.num_images[split], self._fence)


@dataclass(frozen=True)
class FolderReader:
    """Encoded images of one split. Small when pickled; the index is mapped when first needed.

    Attributes:
        folder: The split's folder.
        index: The index's file.
        split: The split in the index.
        num_images: Number of images.
        fence: No file outside of it is read, even if links have changed since the index was made.
    """

    folder: Location
    index: Path
    split: Split
    num_images: int
    fence: Fence | None = None

    @property
    def groups(self) -> None:
        """None: files can be read in any order."""
        return

    def __len__(self) -> int:
        return self.num_images

    def read(self, samples: NDArray[np.int64]) -> list[Encoded]:
        """Read some images, in order; from a remote storage, many at once.

        Args:
            samples: int64 [n], indices of images.

        Raises:
            ValueError: The storage fails, or the index is missing; one unreadable image is an `Encoded` with an error.
        """
        rows = open_index(self.index).rows[self.split].take(samples)
        wanted = [
            (os.fsdecode(path), size, label) for path, size, label in zip(*rows.to_pydict().values(), strict=True)
        ]
        if self.folder.is_local:
            return [self._read(*image) for image in wanted]
        futures = [_readers(os.getpid()).submit(self._read, *image) for image in wanted]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def labels(self) -> NDArray[np.int64]:
        """Return all labels: int64 [N]."""
        labels: NDArray[np.int64] = open_index(self.index).rows[self.split].column("label").to_numpy().astype(np.int64)
        return labels

    def decoded(self, layout: Layout, pool: Executor, *, may_lose_colors: bool) -> Iterator[NDArray[np.uint8]]:
        """Read and decode all images, in order, on the pool's threads; see `inq_ray.data.decode.small.decode`.

        Yields:
            uint8 [n, C, H, W], n small.

        Raises:
            ValueError: An image cannot be read, or has another layout; the message names it.
        """

        def decode(samples: NDArray[np.int64]) -> NDArray[np.uint8]:
            images = np.empty((len(samples), layout.channels, layout.height, layout.width), np.uint8)
            for place, encoded in enumerate(self.read(samples)):
                try:
                    images[place] = decode_one(encoded, layout, may_lose_colors=may_lose_colors)
                except ValueError as error:
                    raise ValueError(f"{encoded.name}: {error}") from error
            return images

        samples = np.arange(len(self))
        for start in range(0, len(self), _NUM_DECODED**2):
            part = samples[start : start + _NUM_DECODED**2]
            yield from pool.map(decode, np.split(part, range(_NUM_DECODED, len(part), _NUM_DECODED)))

    def stamp(self) -> str:
        """Return a digest that changes when a file changes, also in place."""
        digest = hashlib.sha256()
        if self.folder.is_local:
            for path in open_index(self.index).rows[self.split].column("path").to_pylist():
                digest.update(f"{stamp_of(self.folder.join(os.fsdecode(path)))} ".encode())
        else:
            for info in self.folder.list(recursive=True):
                digest.update(f"{info.path} {info.size} {info.mtime_ns} ".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _read(self, path: str, size: int, label: int) -> Encoded:
        file = self.folder.join(path)
        try:
            data = file.read(size, fence=self.fence)
        except MissingError as error:
            if not self.folder.exists():
                raise ValueError(f"{self.folder.name} existed when it was listed, but does not any more") from error
            return Encoded(file.name, None, label, "the file does not exist")
        except UnreadableError as error:
            return Encoded(file.name, None, label, error.reason)
        return Encoded(file.name, data, label) if data else Encoded(file.name, None, label, "the file is empty")


@cache
def _readers(_: int) -> ThreadPoolExecutor:
    """Return this process's reader threads."""
    return ThreadPoolExecutor(NUM_READERS, thread_name_prefix="inq_ray-read")


def _notes(location: Location, facts: FolderFacts) -> tuple[str, ...]:
    """Return a line for each kind of files that were left out of a folder."""
    notes = []
    if facts.num_ignored:
        notes.append(
            f"{location.name}: ignored {counted(facts.num_ignored, 'file')}, not images of a class by their names"
        )
    if facts.num_untested:
        notes.append(f"{location.name}: {facts.num_untested} of {len(facts.class_names)} classes have no test images")
    return tuple(notes)
