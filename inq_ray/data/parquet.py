"""Images in Parquet as a source of data: facts from the footers, pixels decoded once per node."""

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

from inq_ray.data.decode import Layout
from inq_ray.data.image_set import ImageSet, SourceInfo, Split
from inq_ray.data.node_cache import shared_file
from inq_ray.data.parquet_files import Shard, check_labels, find_files, read_shard, readable
from inq_ray.data.parquet_pixels import decode_shard, peek_layouts, read_labels
from inq_ray.data.transforms import Augmentation

FORMAT_VERSION = 1
MAX_BYTES = 8 * 2**30
# Of ImageNet's pixels, what torchvision's weights are trained with; for gray images the mean over the channels.
MEAN = {3: (0.485, 0.456, 0.406), 1: (0.449,)}
STD = {3: (0.229, 0.224, 0.225), 1: (0.226,)}
_NUM_PEEKED = 32
_LABEL_BYTES = 8


class ParquetSource:
    """A folder of train-*.parquet and test-*.parquet (or validation-*.parquet), or one such file.

    Making one reads the footers and the headers of the first images. A test split without labels (-1, as on the hub) is
    passed over for the validation split. Without training files the source can only be tested on.

    Args:
        path: The folder or file.

    Attributes:
        info: Facts.
        augmentation: Crops by an eighth of the height (4 pixels for 32x32), and flips where images have colours: gray
            ones may be of characters.

    Raises:
        ValueError: The files are missing, unreadable, not of this layout, or too large to be decoded as a whole.
    """

    def __init__(self, path: Path) -> None:
        with readable(path):
            files = find_files(path)
        self._shards: dict[Split, list[Shard]] = {
            "test": _test_shards(path, files),
            "train": _read_shards(files.get("train", [])),
        }
        shards = [shard for split in self._shards.values() for shard in split]
        class_names = _class_names(shards)
        self._layout = layout = _common_layout(path, [s[0] for s in self._shards.values() if s])
        for split in self._shards:
            _check_size(path, split, self._num(split), layout)
        self.info = SourceInfo(
            name=str(path),
            num_classes=len(class_names),
            class_names=class_names,
            channels=layout.channels,
            height=layout.height,
            width=layout.width,
            num_train=self._num("train"),
            num_test=self._num("test"),
            mean=MEAN[layout.channels],
            std=STD[layout.channels],
            fingerprint=_fingerprint(shards),
        )
        self.augmentation = Augmentation(padding=layout.height // 8, flip=layout.channels == 3)

    def split(self, split: Split) -> ImageSet:
        """Return the decoded images of "train" or "test", mapped read-only from a file that the node's processes share.

        The first process of a node that asks decodes, the others wait.

        Raises:
            ValueError: There is no such split; an image is broken or of another size; a label is out of range; there is
                no room for the decoded images.
            TimeoutError: Another process has been decoding for too long.
        """
        shards = self._shards[split]
        if not shards:
            raise ValueError(f"{self.info.name} has no {split} split: no {split}-*.parquet there")

        def write(file: BinaryIO) -> None:
            file.writelines(read_labels(shard, self.info.num_classes).tobytes() for shard in shards)
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                for shard in shards:
                    file.writelines(images.data for images in decode_shard(shard, self._layout, pool))

        num_bytes = self._num(split) * (_LABEL_BYTES + self._layout.num_bytes)
        path = shared_file(f"{split}-{_cache_key(shards, self._layout)}", num_bytes, write)
        return ImageSet(*_map(path, self._num(split), self._layout), self.augmentation)

    def _num(self, split: Split) -> int:
        return sum(shard.num_rows for shard in self._shards[split])


def _read_shards(files: list[Path]) -> list[Shard]:
    """Read the footers of a split's files; those without rows play no part."""
    shards = [shard for shard in map(read_shard, files) if shard.num_rows]
    if files and not shards:
        raise ValueError(f"{files[0]} has no rows, nor has any other file of its split")
    return shards


def _test_shards(path: Path, files: dict[str, list[Path]]) -> list[Shard]:
    """Return the files to test on: those of test, or of validation where test is missing or has no labels."""
    candidates = [_read_shards(files[split]) for split in ("test", "validation") if split in files]
    if not candidates:
        raise ValueError(f"{path} has no test split: no test-*.parquet or validation-*.parquet there")
    labelled = [shards for shards in candidates if not any(shard.labels and shard.labels[0] < 0 for shard in shards)]
    return (labelled or candidates)[0]


def _class_names(shards: Sequence[Shard]) -> tuple[str, ...]:
    """Return the names that all files agree on, numbers where none has names; check labels as far as footers tell."""
    names = shards[0].class_names
    for shard in shards:
        if shard.class_names != names:
            raise ValueError(f"{shard.path} has other class names than {shards[0].path}")
    ranges = {shard.path: shard.labels for shard in shards if shard.labels is not None}
    if names is None:
        if len(ranges) < len(shards):
            raise ValueError(f"{shards[0].path} has neither class names (schema metadata 'huggingface') nor statistics")
        names = tuple(map(str, range(1 + max(highest for _, highest in ranges.values()))))
    for path, (lowest, highest) in ranges.items():
        check_labels(path, lowest, highest, len(names))
    return names


def _common_layout(path: Path, shards: list[Shard]) -> Layout:
    """Return the layout of these files' first images: one size, in colour if any is."""
    layouts = [layout for shard in shards for layout in peek_layouts(shard, _NUM_PEEKED)]
    sizes = sorted({(layout.width, layout.height) for layout in layouts})
    if len(sizes) > 1:
        some = ", ".join(f"{width}x{height}" for width, height in sizes[:3])
        raise ValueError(
            f"{path} has images of unequal size ({some} ...), not supported: resize them to one size first"
        )
    return max(layouts, key=lambda layout: layout.channels)


def _check_size(path: Path, split: Split, num: int, layout: Layout) -> None:
    num_bytes = num * layout.num_bytes
    if num_bytes > MAX_BYTES:
        raise ValueError(
            f"{path}: {num} {split} images of {layout.width}x{layout.height} are {num_bytes / 2**30:.1f} GiB decoded, "
            f"more than the {MAX_BYTES / 2**30:.0f} GiB that are kept in memory: use smaller images or fewer"
        )


def _fingerprint(shards: Sequence[Shard]) -> str:
    """Hash the files' names, sizes and footers (schema, statistics, sizes of all columns): the same on every node."""
    facts = [(shard.path.name, shard.path.stat().st_size, shard.footer) for shard in shards]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _cache_key(shards: Sequence[Shard], layout: Layout) -> str:
    """Hash what a decoded file depends on, on this node: the files in the order of reading, when they were changed."""
    states = [(str(shard.path), shard.path.stat()) for shard in shards]
    facts = [(path, state.st_size, state.st_mtime_ns) for path, state in states]
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
