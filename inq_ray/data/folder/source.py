"""A folder of images with a folder for each class as a source of data: torchvision's ImageFolder layout, anywhere.

    train/CLASS/....JPEG
    val/CLASS/....JPEG        or validation/, or test/: the first of them that exists; none = images must be held out

Classes are numbered in the order of their names, those of train; a class of val that is not in train is an error, one
without images in val is not. Without train the source can only be tested on.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inq_ray.data.augment.image_transform import ImageTransform
from inq_ray.data.encoded_set import Encoded, EncodedSet
from inq_ray.data.folder.cache import find_index
from inq_ray.data.folder.index import FolderFacts, open_index
from inq_ray.data.folder.listing import SPLIT_FOLDERS, find_splits, is_image, scan
from inq_ray.data.image_set import SourceInfo, Split
from inq_ray.data.preset import Policy, Preset
from inq_ray.storage.address import Location
from inq_ray.storage.fence import Fence
from inq_ray.storage.retry import MissingError, UnreadableError

# Of each process, at a storage that is far: most of the time of a read is waiting.
NUM_READERS = 16


def is_image_folder(location: Location) -> bool:
    """Return whether a place looks like a folder of images rather than one of Parquet.

    Raises:
        ValueError: The storage fails.
    """
    if location.is_local and not os.path.isdir(location.path):
        return False
    try:
        if find_splits(location):
            return True
        folders = [os.fsdecode(entry.path) for entry in scan(location) if entry.is_folder]
        return any(is_image(entry.path) for name in folders[:1] for entry in scan(location.join(name)))
    except MissingError:
        return False


class FolderSource:
    """A folder of images, read when they are asked for.

    Making one lists the folder, or finds its index; see `inq_ray.data.folder.cache`.

    Args:
        location: The folder.
        preset: How the network wants to see images.
        policy: What training does to images.
        index_folder: Where the index is kept; by default in the cache of this machine.
        fingerprint: That of the source where the run was started, so that no other data are read, and a storage is not
            listed again.
        follow_links: Whether links in the folder may lead out of it.

    Attributes:
        info: Facts.
        notes: What users should know of the folder, a line each: what was left out.

    Raises:
        ValueError: The folder is not of this layout or not of this fingerprint, or cannot be read; a link leads out of
            it; one line.
        TimeoutError: Another process of this machine has been listing it for too long.
    """

    def __init__(
        self,
        location: Location,
        preset: Preset,
        policy: Policy,
        index_folder: Path | None = None,
        *,
        fingerprint: str | None = None,
        follow_links: bool = False,
    ) -> None:
        self._location = location
        self._fence = location.fence(follow_links=follow_links)
        self._transform = ImageTransform(preset, policy)
        self._index = find_index(location, index_folder, fingerprint, fence=self._fence)
        facts = self._index.facts
        self.info = SourceInfo(
            name=location.name,
            num_classes=len(facts.class_names),
            class_names=facts.class_names,
            channels=3,
            height=preset.crop_size,
            width=preset.crop_size,
            num_train=facts.num_images["train"],
            num_test=facts.num_images["test"],
            mean=preset.mean,
            std=preset.std,
            fingerprint=facts.fingerprint,
            is_streamed=True,
        )
        self.notes = _notes(location, facts)

    def split(self, split: Split) -> EncodedSet:
        """Return the images of "train" or "test".

        Raises:
            ValueError: There is no such split.
        """
        facts = self._index.facts
        if split not in facts.folders:
            names = " or ".join(f"{name}/" for name in SPLIT_FOLDERS[split])
            advice = "; hold out training images instead (--holdout)" if split == "test" else ""
            raise ValueError(f"{self._location.name} has no {split} split: no folder {names} there{advice}")
        reader = FolderReader(
            self._location.join(facts.folders[split]),
            self._index.path,
            split,
            facts.num_images[split],
            self._fence,
        )
        return EncodedSet(reader, self._transform)


@dataclass(frozen=True)
class FolderReader:
    """The images of one split, as they are stored. Small to pickle; the index is mapped when it is first needed.

    Attributes:
        folder: Of the split.
        index: The index's file.
        split: Which of its splits.
        num_images: How many.
        fence: No file outside of it is read, whatever has become of the links since the index was made.
    """

    folder: Location
    index: Path
    split: Split
    num_images: int
    fence: Fence | None = None

    @property
    def groups(self) -> None:
        """None: files are read in any order."""
        return

    def __len__(self) -> int:
        return self.num_images

    def read(self, samples: NDArray[np.int64]) -> list[Encoded]:
        """Read some images, in this order; at a storage that is far, many at once.

        Args:
            samples: int64 [n], numbers of images.

        Raises:
            ValueError: The storage fails, or the index is gone; one unreadable image is an `Encoded` with an error.
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

    def _read(self, path: str, size: int, label: int) -> Encoded:
        file = self.folder.join(path)
        try:
            data = file.read(size, fence=self.fence)
        except MissingError as error:
            if not self.folder.exists():
                raise ValueError(f"{self.folder.name} was there when it was listed, and is not any more") from error
            return Encoded(file.name, None, label, "the file is not there")
        except UnreadableError as error:
            return Encoded(file.name, None, label, error.reason)
        return Encoded(file.name, data, label) if data else Encoded(file.name, None, label, "the file is empty")


@cache
def _readers(_: int) -> ThreadPoolExecutor:
    """Return the threads that read, those of this process."""
    return ThreadPoolExecutor(NUM_READERS, thread_name_prefix="inq_ray-read")


def _notes(location: Location, facts: FolderFacts) -> tuple[str, ...]:
    """Return what was left out of a folder, a line each."""
    notes = []
    if facts.num_ignored:
        notes.append(
            f"{location.name}: left out {facts.num_ignored} files that are no images of a class, by their names"
        )
    if facts.num_untested:
        notes.append(
            f"{location.name}: {facts.num_untested} of {len(facts.class_names)} classes have no image to test on"
        )
    return tuple(notes)
