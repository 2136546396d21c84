"""Rows of Parquet shards, decoded as a whole: labels and pixels of small images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from inq_ray.data.decode.small import Layout, decode
from inq_ray.data.encoded import Encoded
from inq_ray.data.parquet.access import open_parquet, read_groups, readable
from inq_ray.data.parquet.files import NO_BYTES, Shard, check_labels, check_no_nulls, image_bytes
from inq_ray.data.parquet.labels import numbers

_NUM_DECODED = 64
# At a storage that is far most of the time of a read is waiting.
_NUM_READERS = 8


def read_labels(shard: Shard, class_names: Sequence[str]) -> NDArray[np.int64]:
    """Return all labels of a file: int64 [num_rows].

    Raises:
        ValueError: The file is damaged, or a label is missing or out of range.
    """
    name = shard.file.name
    column = read_groups(shard.file, shard.footer, range(len(shard.group_rows)), [shard.label_column]).column(0)
    column = numbers(column, class_names)
    check_no_nulls(name, column.null_count)
    labels: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    if len(labels):
        check_labels(name, int(labels.min()), int(labels.max()), len(class_names))
    return labels


def peek_blobs(shard: Shard, group: int, num: int) -> list[bytes | None]:
    """Return the first `num` image files of a row group; None for rows without bytes.

    Raises:
        ValueError: The file is damaged.
    """
    with open_parquet(shard.file, shard.footer, whole_columns=False) as parquet, readable(shard.file.name):
        batches = parquet.iter_batches(num, row_groups=[group], columns=[shard.image_path], use_threads=False)
        first = next(batches, None)
    return [] if first is None else image_bytes([first.column(0)])


def sample_blobs(shards: Sequence[Shard], num_first: int, num_groups: int, num: int) -> list[Encoded]:
    """Return some image files of a split, without labels: from its first row group, and from others all over it.

    Args:
        shards: The files.
        num_first: Maximum number of images from the first row group.
        num_groups: Maximum number of row groups to read, including the last.
        num: Maximum number of images from each of the others.

    Raises:
        ValueError: A file is damaged.
    """
    groups = [(shard, group) for shard in shards for group in range(len(shard.group_rows))]
    chosen = sorted({round(each) for each in np.linspace(0, len(groups) - 1, num_groups)}) if groups else []

    def read(number: int) -> list[Encoded]:
        shard, group = groups[number]
        row, name = sum(shard.group_rows[:group]), shard.file.name
        blobs = peek_blobs(shard, group, num if number else num_first)
        return [
            Encoded(f"{name}, row {row + place}", data, 0, NO_BYTES if data is None else None)
            for place, data in enumerate(blobs)
        ]

    with ThreadPoolExecutor(_NUM_READERS) as pool:
        return [each for encoded in pool.map(read, chosen) for each in encoded]


def decode_shard(
    shard: Shard, layout: Layout, pool: Executor, *, may_lose_colors: bool = False
) -> Iterator[NDArray[np.uint8]]:
    """Decode all images of a file, in order, on the pool's threads; at most one row group is in memory.

    See `inq_ray.data.decode.small.decode`.

    Yields:
        uint8 [n, C, H, W], n small.

    Raises:
        ValueError: The file or an image is damaged, or an image has another size; the message names file and row.
    """

    def decode_rows(first: int, blobs: list[bytes | None]) -> NDArray[np.uint8]:
        images = np.empty((len(blobs), layout.channels, layout.height, layout.width), np.uint8)
        for place, data in enumerate(blobs):
            try:
                if data is None:
                    raise ValueError(NO_BYTES)
                images[place] = decode(data, layout, may_lose_colors=may_lose_colors)
            except ValueError as error:
                raise ValueError(f"{shard.file.name}, row {first + place}: {error}") from error
        return images

    row = 0
    for group, num_rows in enumerate(shard.group_rows):
        table = read_groups(shard.file, shard.footer, [group], [shard.image_path])
        blobs = image_bytes(table.column(0).chunks)
        starts = range(0, num_rows, _NUM_DECODED)
        parts = [blobs[start : start + _NUM_DECODED] for start in starts]
        yield from pool.map(decode_rows, [row + start for start in starts], parts)
        row += num_rows
