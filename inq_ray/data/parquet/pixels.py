"""The rows of Parquet shards, decoded as a whole: labels and pixels of small images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from inq_ray.data.decode.small import Layout, decode
from inq_ray.data.parquet.access import open_parquet, read_groups, readable
from inq_ray.data.parquet.files import NO_BYTES, Shard, check_labels, check_no_nulls, image_bytes
from inq_ray.data.parquet.labels import numbers

_NUM_DECODED = 64


def read_labels(shard: Shard, class_names: Sequence[str]) -> NDArray[np.int64]:
    """Return all labels of a file: int64 [num_rows].

    Raises:
        ValueError: The file is damaged, a label is missing or out of range.
    """
    name = shard.file.name
    column = read_groups(shard.file, shard.footer, range(len(shard.group_rows)), [shard.label_column]).column(0)
    column = numbers(column, class_names)
    check_no_nulls(name, column.null_count)
    labels: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    if len(labels):
        check_labels(name, int(labels.min()), int(labels.max()), len(class_names))
    return labels


def peek_blobs(shard: Shard, num: int) -> list[bytes | None]:
    """Return the first `num` image files; None where there are no bytes.

    Raises:
        ValueError: The file is damaged.
    """
    with open_parquet(shard.file, shard.footer, whole_columns=False) as parquet, readable(shard.file.name):
        batches = parquet.iter_batches(num, columns=[shard.image_path], use_threads=False)
        first = next(batches, None)
    return [] if first is None else image_bytes([first.column(0)])


def decode_shard(
    shard: Shard, layout: Layout, pool: Executor, *, may_lose_colours: bool = False
) -> Iterator[NDArray[np.uint8]]:
    """Decode all images of a file, in their order, on the pool's threads; no more than a row group is in memory.

    See `inq_ray.data.decode.small.decode`.

    Yields:
        uint8 [n, C, H, W], n small.

    Raises:
        ValueError: The file is damaged, or an image is, or it has another size; the message names file and row.
    """

    def decode_rows(first: int, blobs: list[bytes | None]) -> NDArray[np.uint8]:
        images = np.empty((len(blobs), layout.channels, layout.height, layout.width), np.uint8)
        for place, data in enumerate(blobs):
            try:
                if data is None:
                    raise ValueError(NO_BYTES)
                images[place] = decode(data, layout, may_lose_colours=may_lose_colours)
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
