"""The rows of Parquet shards, decoded as a whole: labels and pixels of small images."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inq_ray.data.decode.small import Layout, decode, read_layout
from inq_ray.data.parquet.access import read_groups
from inq_ray.data.parquet.files import LABEL_COLUMN, Shard, check_labels, check_no_nulls
from inq_ray.data.parquet.rows import NO_BYTES, peek_blobs, read_blobs

_NUM_DECODED = 64


class _Row(NamedTuple):
    """One image file and where it stands."""

    shard: Shard
    row: int
    data: bytes | None

    def layout(self) -> Layout:
        """Read the image's header."""
        try:
            return read_layout(self._present())
        except ValueError as error:
            raise ValueError(f"{self.shard.file.name}, row {self.row}: {error}") from error

    def pixels(self, layout: Layout) -> NDArray[np.uint8]:
        """Decode the image."""
        try:
            return decode(self._present(), layout)
        except ValueError as error:
            raise ValueError(f"{self.shard.file.name}, row {self.row}: {error}") from error

    def _present(self) -> bytes:
        if self.data is None:
            raise ValueError(NO_BYTES)
        return self.data


def read_labels(shard: Shard, num_classes: int) -> NDArray[np.int64]:
    """Return all labels of a file: int64 [num_rows].

    Raises:
        ValueError: The file is damaged, a label is missing or out of range.
    """
    name = shard.file.name
    column = read_groups(shard.file, shard.footer, range(len(shard.group_rows)), [LABEL_COLUMN]).column(0)
    check_no_nulls(name, column.null_count)
    labels: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    if len(labels):
        check_labels(name, int(labels.min()), int(labels.max()), num_classes)
    return labels


def peek_layouts(shard: Shard, num: int) -> list[Layout]:
    """Return the layouts of the first `num` images from their headers; those that cannot be read are left out.

    Raises:
        ValueError: The file is damaged.
    """
    layouts: list[Layout] = []
    for row, data in enumerate(peek_blobs(shard, num)):
        with suppress(ValueError):
            layouts.append(_Row(shard, row, data).layout())
    return layouts


def decode_shard(shard: Shard, layout: Layout, pool: Executor) -> Iterator[NDArray[np.uint8]]:
    """Decode all images of a file, in their order, on the pool's threads; no more than a row group is in memory.

    Yields:
        uint8 [n, C, H, W], n small.

    Raises:
        ValueError: The file is damaged, or an image is, or it has another size; the message names file and row.
    """
    first = 0
    for blobs in read_blobs(shard):
        rows = [_Row(shard, row, data) for row, data in enumerate(blobs, first)]
        parts = [rows[start : start + _NUM_DECODED] for start in range(0, len(rows), _NUM_DECODED)]
        yield from pool.map(partial(_decode, layout=layout), parts)
        first += len(rows)


def _decode(rows: list[_Row], layout: Layout) -> NDArray[np.uint8]:
    """Decode some rows: uint8 [n, C, H, W], contiguous."""
    images = np.empty((len(rows), layout.channels, layout.height, layout.width), np.uint8)
    for place, row in enumerate(rows):
        images[place] = row.pixels(layout)
    return images
