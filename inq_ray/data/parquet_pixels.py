"""What stands in the rows of a Parquet shard: labels and images."""

from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from inq_ray.data.decode import Layout, decode, read_layout
from inq_ray.data.parquet_files import LABEL_COLUMN, Shard, check_labels, readable

_NUM_READ = 1024
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
            raise ValueError(f"{self.shard.path}, row {self.row}: {error}") from error

    def pixels(self, layout: Layout) -> NDArray[np.uint8]:
        """Decode the image."""
        try:
            return decode(self._present(), layout)
        except ValueError as error:
            raise ValueError(f"{self.shard.path}, row {self.row}: {error}") from error

    def _present(self) -> bytes:
        if self.data is None:
            raise ValueError(
                "there are no bytes of an image, perhaps a path only; write the file's bytes into the column"
            )
        return self.data


def read_labels(shard: Shard, num_classes: int) -> NDArray[np.int64]:
    """Return all labels of a file: int64 [num_rows].

    Raises:
        ValueError: The file is damaged, a label is missing or out of range.
    """
    with readable(shard.path):
        column = pq.read_table(shard.path, columns=[LABEL_COLUMN], partitioning=None).column(0)
    if column.null_count:
        raise ValueError(f"{shard.path} has {column.null_count} rows without a label")
    labels: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    if len(labels):
        check_labels(shard.path, int(labels.min()), int(labels.max()), num_classes)
    return labels


def peek_layouts(shard: Shard, num: int) -> list[Layout]:
    """Return the layouts of the first `num` images, or as many as there are, from their headers.

    Raises:
        ValueError: The file is damaged, or an image is.
    """
    return [row.layout() for row in next(_batches(shard, num), [])]


def decode_shard(shard: Shard, layout: Layout, pool: Executor) -> Iterator[NDArray[np.uint8]]:
    """Decode all images of a file, in their order, on the pool's threads; memory stays bounded.

    Yields:
        uint8 [n, C, H, W], n small.

    Raises:
        ValueError: The file is damaged, or an image is, or it has another size; the message names file and row.
    """
    for rows in _batches(shard, _NUM_READ):
        parts = [rows[start : start + _NUM_DECODED] for start in range(0, len(rows), _NUM_DECODED)]
        yield from pool.map(partial(_decode, layout=layout), parts)


def _decode(rows: list[_Row], layout: Layout) -> NDArray[np.uint8]:
    """Decode some rows: uint8 [n, C, H, W], contiguous."""
    images = np.empty((len(rows), layout.channels, layout.height, layout.width), np.uint8)
    for place, row in enumerate(rows):
        images[place] = row.pixels(layout)
    return images


def _batches(shard: Shard, size: int) -> Iterator[list[_Row]]:
    """Yield the image files of a shard, `size` at a time."""
    row = 0
    with readable(shard.path), pq.ParquetFile(shard.path) as file:
        for batch in file.iter_batches(size, columns=[f"{shard.image_column}.bytes"], use_threads=False):
            blobs = batch.column(0).field("bytes").to_pylist()
            yield [_Row(shard, row + place, data) for place, data in enumerate(blobs)]
            row += len(blobs)
