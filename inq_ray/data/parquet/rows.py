"""What stands in the rows of a Parquet file's row group: image files and labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inq_ray.data.parquet.access import open_parquet, read_groups, readable
from inq_ray.data.parquet.files import LABEL_COLUMN, Shard
from inq_ray.storage.address import Location

NO_BYTES = "there are no bytes of an image, perhaps a path only; write the file's bytes into the column"


@dataclass(frozen=True)
class RowGroup:
    """The image files and labels of a row group; None where there is none.

    Attributes:
        blobs: The files' bytes.
        labels: As they stand there, not checked.
    """

    blobs: list[bytes | None]
    labels: list[int | None]


def read_row_group(file: Location, footer: str, group: int, image_column: str) -> RowGroup:
    """Read one row group: the bytes of its images and their labels, and no other column.

    Args:
        file: The file.
        footer: Its footer's hash.
        group: Number of the row group.
        image_column: "image" or "img".

    Raises:
        ValueError: The file cannot be read, is damaged, or has changed.
    """
    table = read_groups(file, footer, [group], [f"{image_column}.bytes", LABEL_COLUMN])
    return RowGroup(_blobs(table.column(image_column)), table.column(LABEL_COLUMN).to_pylist())


def read_blobs(shard: Shard) -> Iterator[list[bytes | None]]:
    """Yield all image files of a shard, row group by row group.

    Raises:
        ValueError: The file cannot be read, is damaged, or has changed.
    """
    for group in range(len(shard.group_rows)):
        yield _blobs(read_groups(shard.file, shard.footer, [group], [f"{shard.image_column}.bytes"]).column(0))


def peek_blobs(shard: Shard, num: int) -> list[bytes | None]:
    """Return the first `num` image files, or as many as there are, without reading a whole row group.

    Raises:
        ValueError: The file cannot be read, is damaged, or has changed.
    """
    with open_parquet(shard.file, shard.footer, whole_columns=False) as parquet, readable(shard.file.name):
        batches = parquet.iter_batches(num, columns=[f"{shard.image_column}.bytes"], use_threads=False)
        first = next(batches, None)
    return [] if first is None else first.column(0).field("bytes").to_pylist()


def _blobs(images: Any) -> list[bytes | None]:
    """Return the field `bytes` of a chunked array of structs."""
    return [blob for chunk in images.chunks for blob in chunk.field("bytes").to_pylist()]
