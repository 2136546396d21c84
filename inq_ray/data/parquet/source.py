"""Parquet as a data source: small images decoded once per node, others read and decoded on demand."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch

from inq_ray.data.decode.small import Layout, common_layout, read_layout
from inq_ray.data.decoded import decode_some, decoded_set, fits, size_notes
from inq_ray.data.encoded import Encoded
from inq_ray.data.image_set import Images, Samples, SourceInfo, Split
from inq_ray.data.memory_set import ImageSet
from inq_ray.data.parquet.files import Columns, Shard, check_labels, find_files, read_shards
from inq_ray.data.parquet.pixels import decode_shard, read_labels, sample_blobs
from inq_ray.data.preprocessing import Augmentation, Preprocessing, of_channels
from inq_ray.storage.address import Location

FORMAT_VERSION = 1
# Images that are looked at: the first ones of a split, and where those are small, some of row groups all over it.
_NUM_PEEKED = 32
_NUM_GROUPS = 32
_NUM_OF_GROUP = 8
_NUM_NAMED = 4


class ParquetSource:
    """A folder of train-*.parquet and test-*.parquet (or validation-*.parquet), one such file, or a glob of them.

    Opening one reads the footers and the headers of some images, from all over a split if the first ones are small. If
    all are small and of one size (`inq_ray.data.decoded.fits`), a split is decoded as a whole, once per node. Else
    image files are read on demand and preprocessed.

    A test split without labels (-1, as on the hub) is replaced by the validation split, if there is one. Without
    training files the source can only be tested on; without test files, accuracy is measured on held-out training
    images.

    Args:
        data: Path or address.
        preprocessing: Preprocessing that the network expects; for images in memory only mean and standard deviation.
        augmentation: Augmentation for training.
        columns: Names of the columns.
        follow_links: Whether links in the folder may lead out of it.

    Attributes:
        info: Facts about the data.
        notes: Lines about image sizes, for the user.

    Raises:
        ValueError: The files are missing, unreadable, or have another layout.
    """

    def __init__(
        self,
        data: str,
        preprocessing: Preprocessing | None = None,
        augmentation: Augmentation | None = None,
        *,
        columns: Columns = Columns(),  # noqa: B008
        follow_links: bool = False,
    ) -> None:
        files = find_files(data, follow_links=follow_links)
        train = read_shards(files.get("train", []), columns)
        test = _test_shards(files, columns, has_train=bool(train))
        self._shards: dict[Split, list[Shard]] = {"test": test, "train": train}
        shards, class_names = [*test, *train], _class_names(train, test)
        self._preprocessing, self._augmentation = preprocessing or Preprocessing(), augmentation or Augmentation()
        channels, crop_size = self._preprocessing.channels, self._preprocessing.crop_size
        self._samples = {split: sample_blobs(some, _NUM_PEEKED, 1, 0) for split, some in self._shards.items()}
        layouts = _layouts(self._samples)
        self._layout = None
        if self._stays(common_layout(layouts)):  # judging by the first images
            self._samples = {
                split: sample_blobs(some, _NUM_PEEKED, _NUM_GROUPS, _NUM_OF_GROUP)
                for split, some in self._shards.items()
            }
            layouts = _layouts(self._samples)
            layout = common_layout(layouts)
            if layout is not None and self._stays(layout):
                self._layout = dataclasses.replace(layout, channels=channels or layout.channels)
        if self._layout is None:
            self._samples.clear()
        self.notes = () if self._layout else size_notes(data, layouts, self._preprocessing)
        seen = self._layout or Layout(channels or 3, crop_size, crop_size)
        self.info = SourceInfo(
            name=data,
            num_classes=len(class_names),
            class_names=class_names,
            channels=seen.channels,
            height=seen.height,
            width=seen.width,
            num_train=self._num("train"),
            num_test=self._num("test"),
            mean=of_channels(self._preprocessing.mean, seen.channels),
            std=of_channels(self._preprocessing.std, seen.channels),
            fingerprint=_fingerprint(shards),
            is_streamed=self._layout is None,
            is_grouped=self._layout is None,
        )

    def split(self, split: Split) -> Images:
        """Return the images of "train" or "test".

        Images in memory are mapped read-only from a file that the node's processes share: the first process that needs
        it decodes, the others wait. For training they are cropped by an eighth of their height (4 pixels for 32x32),
        and flipped if they are in color: gray images may show characters.

        Raises:
            ValueError: There is no such split. For images in memory: one is damaged or of another size; a label is out
                of range; there is not enough space.
            TimeoutError: Another process has been decoding for too long.
        """
        shards = self._shards[split]
        if not shards:
            raise ValueError(f"{self.info.name} has no {split} split: no {split}-*.parquet there")
        if self._layout is None:
            # Images in memory need none of these imports, which take seconds.
            from inq_ray.data.augment.image_transform import ImageTransform
            from inq_ray.data.encoded_set import EncodedSet
            from inq_ray.data.parquet.reader import ParquetReader

            reader = ParquetReader(shards, self.info.num_classes, class_names=self.info.class_names)
            return EncodedSet(reader, ImageTransform(self._preprocessing, self._augmentation))
        return self._decoded(split, shards, self._layout)

    def peek(self, split: Split) -> Samples:
        """Read and decode the first images of a split; see :meth:`inq_ray.data.image_set.Source.peek`."""
        if self._layout is None:
            images = self.split(split)
            return images.fetch(torch.arange(min(_NUM_PEEKED, len(images))), None)
        return decode_some(self._samples[split], self._layout, may_lose_colors=self._preprocessing.channels == 1)

    def _decoded(self, split: Split, shards: list[Shard], layout: Layout) -> ImageSet:
        may_lose_colors = self._preprocessing.channels == 1
        return decoded_set(
            f"{split}-{_cache_key(shards, layout)}",
            self._num(split),
            layout,
            lambda: (read_labels(shard, self.info.class_names) for shard in shards),
            lambda pool: (
                part for shard in shards for part in decode_shard(shard, layout, pool, may_lose_colors=may_lose_colors)
            ),
            self._augmentation,
            self.info.mean,
        )

    def _stays(self, layout: Layout | None) -> bool:
        """Return whether images of this layout are kept in memory, as they are."""
        return fits(layout, max(map(self._num, self._shards)))

    def _num(self, split: Split) -> int:
        return sum(shard.num_rows for shard in self._shards[split])


def _test_shards(files: dict[str, list[Location]], columns: Columns, *, has_train: bool) -> list[Shard]:
    """Return the files to test on: those of test, or of validation if test is missing or has no labels."""
    candidates = [read_shards(files[split], columns) for split in ("test", "validation") if split in files]
    labeled = [shards for shards in candidates if not any(shard.labels and shard.labels[0] < 0 for shard in shards)]
    if has_train:
        candidates = [shards for shards in candidates if not all(shard.labels == (-1, -1) for shard in shards)]
    return next(iter(labeled or candidates), [])


def _class_names(train: Sequence[Shard], test: Sequence[Shard]) -> tuple[str, ...]:
    """Return the class names that all files agree on; if there are none, the labels themselves, or numbers.

    Raises:
        ValueError: Files disagree, or labels are not classes, judging by the footers.
    """
    shards = [*test, *train]
    names, first = shards[0].class_names, shards[0].file.name
    for shard in shards:
        if shard.class_names != names:
            raise ValueError(f"{shard.file.name} has other class names than {first}")
    ranges = {shard.file.name: shard.labels for shard in shards if shard.labels is not None}
    if any(shard.has_names for shard in shards):
        names = names or tuple(sorted(map(str, _values(train or test))))
        for shard in shards:
            if strangers := sorted(map(str, (shard.label_values or frozenset()) - set(names))):
                raise ValueError(
                    f"{shard.file.name} has {len(strangers)} labels that are not in training: {_some(strangers)}"
                )
    elif names is None:
        names = tuple(map(str, range(1 + max(highest for _, highest in ranges.values()))))
        _check_numbers(train, test)
    for name, (lowest, highest) in ranges.items():
        check_labels(name, lowest, highest, len(names))
    return names


def _check_numbers(train: Sequence[Shard], test: Sequence[Shard]) -> None:
    """Refuse unnamed numeric labels that do not begin at 0 or have gaps: the number of classes would be wrong."""
    labels = _values([*train, *test])
    missing = sorted(set(range(max(labels))) - labels)
    if not train or not missing or min(labels) < 0:
        return
    name = train[0].file.name
    if min(labels) > 0:
        raise ValueError(
            f"{name}: labels are from {min(labels)} to {max(labels)}, but classes are numbered from 0; "
            f"subtract {min(labels)} from the labels, or write texts, which are numbered automatically"
        )
    raise ValueError(
        f"{name}: labels go up to {max(labels)}, and no image has {_some(map(str, missing))}: classes must be numbered "
        "without gaps; renumber them, write texts as labels, or add the names of all classes to the schema"
    )


def _values(shards: Sequence[Shard]) -> set[Any]:
    return set().union(*(shard.label_values or () for shard in shards))


def _some(names: Iterable[str]) -> str:
    words = [repr(name)[:40] for name in names]
    return ", ".join(words[:_NUM_NAMED]) + ", ..." * (len(words) > _NUM_NAMED)


def _layouts(samples: Mapping[Split, Sequence[Encoded]]) -> list[Layout]:
    """Return the layouts of some images, without those that cannot be read: `peek` reports them."""
    layouts: list[Layout] = []
    for encoded in (encoded for split in samples.values() for encoded in split):
        with suppress(ValueError):
            layouts.append(read_layout(encoded.data or b""))
    return layouts


def _fingerprint(shards: Sequence[Shard]) -> str:
    """Hash the files' names, sizes and footers (schema, statistics, column sizes): the same on every node."""
    facts = [(shard.file.path.rpartition("/")[2], shard.size, shard.footer) for shard in shards]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _cache_key(shards: Sequence[Shard], layout: Layout) -> str:
    """Hash what a decoded file on this node depends on: the files in reading order, and their modification times."""
    facts = [(shard.file.root, shard.file.path, shard.size, shard.mtime_ns, shard.footer) for shard in shards]
    return hashlib.sha256(repr((FORMAT_VERSION, facts, layout)).encode()).hexdigest()[:32]
