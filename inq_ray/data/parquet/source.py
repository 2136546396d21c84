"""Images in Parquet as a source of data: small ones decoded once per node, others read and decoded when asked for."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from inq_ray.data.augment.crop_flip import Augmentation
from inq_ray.data.decode.small import Layout
from inq_ray.data.image_set import Images, SourceInfo, Split
from inq_ray.data.memory_set import ImageSet
from inq_ray.data.node_cache import shared_file
from inq_ray.data.parquet.files import Shard, check_labels, find_files, read_shards
from inq_ray.data.parquet.pixels import decode_shard, peek_layouts, read_labels
from inq_ray.data.preset import Policy, Preset
from inq_ray.storage.address import Location

FORMAT_VERSION = 1
# Kept in memory are images of one size of at most so many pixels a side, if a split's are at most so many bytes.
MAX_SIDE = 96
MAX_BYTES = 8 * 2**30
_NUM_PEEKED = 32
_LABEL_BYTES = 8


class ParquetSource:
    """A folder of train-*.parquet and test-*.parquet (or validation-*.parquet), one such file, or a glob of them.

    Making one reads the footers and the headers of the first images. If those are of one size of at most `MAX_SIDE`
    pixels a side, and a split's images fit into `MAX_BYTES`, a split is decoded as a whole, once per node. Else its
    image files are read when they are asked for, and become what the preset says.

    A test split without labels (-1, as on the hub) is passed over for the validation split, or for none. Without
    training files the source can only be tested on; without test files, only on training images that are held out.

    Args:
        data: Path or address.
        preset: How the network wants to see images; of those kept in memory only mean and standard deviation.
        policy: What training does to them.
        follow_links: Whether links in the folder may lead out of it.

    Attributes:
        info: Facts.
        notes: None.

    Raises:
        ValueError: The files are missing, unreadable, or not of this layout.
    """

    notes = ()

    def __init__(
        self, data: str, preset: Preset | None = None, policy: Policy | None = None, *, follow_links: bool = False
    ) -> None:
        files = find_files(data, follow_links=follow_links)
        train = read_shards(files.get("train", []))
        self._shards: dict[Split, list[Shard]] = {"test": _test_shards(files, has_train=bool(train)), "train": train}
        shards = [shard for split in self._shards.values() for shard in split]
        class_names = _class_names(shards)
        layout = _common_layout([split[0] for split in self._shards.values() if split])
        fits = layout is not None and max(map(self._num, self._shards)) * layout.num_bytes <= MAX_BYTES
        self._layout = layout if fits else None
        self._preset, self._policy = preset or Preset(), policy or Policy()
        crop_size = self._preset.crop_size
        seen = self._layout or Layout(3, crop_size, crop_size)
        self.info = SourceInfo(
            name=data,
            num_classes=len(class_names),
            class_names=class_names,
            channels=seen.channels,
            height=seen.height,
            width=seen.width,
            num_train=self._num("train"),
            num_test=self._num("test"),
            mean=_of_channels(self._preset.mean, seen.channels),
            std=_of_channels(self._preset.std, seen.channels),
            fingerprint=_fingerprint(shards),
            is_streamed=not fits,
            is_grouped=not fits,
        )

    def split(self, split: Split) -> Images:
        """Return the images of "train" or "test".

        Images in memory are mapped read-only from a file that the node's processes share: the first process of a node
        that asks decodes, the others wait. In training they are cropped by an eighth of their height (4 pixels for
        32x32), and flipped where they have colours: gray ones may be of characters.

        Raises:
            ValueError: There is no such split. Of images in memory: one is broken or of another size; a label is out of
                range; there is no room for them.
            TimeoutError: Another process has been decoding for too long.
        """
        shards = self._shards[split]
        if not shards:
            raise ValueError(f"{self.info.name} has no {split} split: no {split}-*.parquet there")
        if self._layout is None:
            # Images in memory need none of these, which take seconds.
            from inq_ray.data.augment.image_transform import ImageTransform
            from inq_ray.data.encoded_set import EncodedSet
            from inq_ray.data.parquet.reader import ParquetReader

            reader = ParquetReader(shards, self.info.num_classes)
            return EncodedSet(reader, ImageTransform(self._preset, self._policy))
        augmentation = Augmentation(padding=self._layout.height // 8, flip=self._layout.channels == 3)
        return ImageSet(*self._decoded(split, shards, self._layout), augmentation, self._policy, self.info.mean)

    def _decoded(self, split: Split, shards: list[Shard], layout: Layout) -> tuple[Tensor, Tensor]:
        """Return all images and labels of some shards, decoded by this process if no other has."""

        def write(file: BinaryIO) -> None:
            file.writelines(read_labels(shard, self.info.num_classes).tobytes() for shard in shards)
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                for shard in shards:
                    file.writelines(images.data for images in decode_shard(shard, layout, pool))

        num_bytes = self._num(split) * (_LABEL_BYTES + layout.num_bytes)
        path = shared_file(f"{split}-{_cache_key(shards, layout)}", num_bytes, write)
        return _map(path, self._num(split), layout)

    def _num(self, split: Split) -> int:
        return sum(shard.num_rows for shard in self._shards[split])


def _of_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return what is stated of red, green and blue; for gray images their mean."""
    return values if channels == 3 else (round(sum(values) / 3, 6),)


def _test_shards(files: dict[str, list[Location]], *, has_train: bool) -> list[Shard]:
    """Return the files to test on, if any: those of test, or of validation where test is missing or has no labels."""
    candidates = [read_shards(files[split]) for split in ("test", "validation") if split in files]
    labelled = [shards for shards in candidates if not any(shard.labels and shard.labels[0] < 0 for shard in shards)]
    if has_train:
        candidates = [shards for shards in candidates if not all(shard.labels == (-1, -1) for shard in shards)]
    return next(iter(labelled or candidates), [])


def _class_names(shards: Sequence[Shard]) -> tuple[str, ...]:
    """Return the names that all files agree on, numbers where none has names; check labels as far as footers tell."""
    names, first = shards[0].class_names, shards[0].file.name
    for shard in shards:
        if shard.class_names != names:
            raise ValueError(f"{shard.file.name} has other class names than {first}")
    ranges = {shard.file.name: shard.labels for shard in shards if shard.labels is not None}
    if names is None:
        if len(ranges) < len(shards):
            raise ValueError(f"{first} has neither class names (schema metadata 'huggingface') nor statistics")
        names = tuple(map(str, range(1 + max(highest for _, highest in ranges.values()))))
    for name, (lowest, highest) in ranges.items():
        check_labels(name, lowest, highest, len(names))
    return names


def _common_layout(shards: list[Shard]) -> Layout | None:
    """Return the layout of the files' first images, in colour if any is; None if they are large or of several sizes.

    None too if no image can be read: what is wrong with them is said when they are needed.
    """
    layouts = [layout for shard in shards for layout in peek_layouts(shard, _NUM_PEEKED)]
    if len({(layout.width, layout.height) for layout in layouts}) != 1:
        return None
    layout = max(layouts, key=lambda layout: layout.channels)
    return layout if max(layout.width, layout.height) <= MAX_SIDE else None


def _fingerprint(shards: Sequence[Shard]) -> str:
    """Hash the files' names, sizes and footers (schema, statistics, sizes of all columns): the same on every node."""
    facts = [(shard.file.path.rpartition("/")[2], shard.size, shard.footer) for shard in shards]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _cache_key(shards: Sequence[Shard], layout: Layout) -> str:
    """Hash what a decoded file depends on, on this node: the files in the order of reading, when they were changed."""
    facts = [(shard.file.root, shard.file.path, shard.size, shard.mtime_ns, shard.footer) for shard in shards]
    return hashlib.sha256(repr((FORMAT_VERSION, facts, layout)).encode()).hexdigest()[:32]


def _map(path: Path, num: int, layout: Layout) -> tuple[Tensor, Tensor]:
    """Map a decoded file, labels first, so that they are aligned; return images and labels."""
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    with warnings.catch_warnings():
        # Read-only is what we want here; torch has no such tensors and warns.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        data = torch.from_numpy(raw)
    labels, images = torch.split(data, [num * _LABEL_BYTES, num * layout.num_bytes])
    return images.view(num, layout.channels, layout.height, layout.width), labels.view(torch.int64)
