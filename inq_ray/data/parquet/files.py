"""Parquet files in the layout of the Hugging Face hub: which belong to which split, and what their footers say."""

import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from inq_ray.data.parquet.access import footer_hash, read_footer
from inq_ray.storage.address import Location
from inq_ray.storage.fence import Fence
from inq_ray.storage.pattern import expand, fixed_part
from inq_ray.storage.retry import MissingError

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMN = "label"
NO_BYTES = "there are no bytes of an image, perhaps a path only; write the file's bytes into the column"
_NAME = re.compile(r"(?P<split>train|test|validation)(-.*?)?(-of-(?P<count>\d+))?\.parquet")
_NUM_THREADS = 16


@dataclass(frozen=True)
class Shard:
    """One file, as its footer describes it.

    Attributes:
        file: Where it lies.
        size: Bytes.
        mtime_ns: When it was changed, where the storage says so.
        group_rows: Number of images in each row group.
        largest_group: Bytes of images in the largest row group.
        image_column: "image" or "img".
        class_names: From the schema's metadata; None where they are missing.
        labels: Smallest and largest label, where the footer has statistics.
        footer: The footer's bytes, hashed.
    """

    file: Location
    size: int
    mtime_ns: int | None
    group_rows: tuple[int, ...]
    largest_group: int
    image_column: str
    class_names: tuple[str, ...] | None
    labels: tuple[int, int] | None
    footer: str

    @property
    def num_rows(self) -> int:
        """Number of images."""
        return sum(self.group_rows)


def find_files(data: str, *, follow_links: bool = False) -> dict[str, list[Location]]:
    """Return the Parquet files of each split: of a folder (or its folder `data`), or of one file's name, or a glob.

    Args:
        data: Path or address; itself it may be a link.
        follow_links: Whether links in the folder, or in that in which a glob begins, may lead out of it.

    Raises:
        ValueError: There is nothing there, no Parquet of that name, a shard is missing from a folder, or a link leads
            out of it.
    """
    places = expand(data)
    is_folder = len(places) == 1 and places[0].info().type == pafs.FileType.Directory
    fence = places[0].fence(follow_links=follow_links)
    if fence and not is_folder:
        folder = fixed_part(data)
        fence = Fence.around(folder) if folder is not None else None
    splits: dict[str, list[Location]] = {}
    for file in _parquet_in(places[0], fence) if is_folder else places:
        if match := _match(file):
            if fence:
                fence.check(file.path)
            splits.setdefault(match["split"], []).append(file)
    if not splits:
        raise MissingError(f"there are no images at {data}")
    for split, files in splits.items() if is_folder else ():
        _check_all_there(data, split, files)
    return splits


def _parquet_in(folder: Location, fence: Fence | None) -> list[Location]:
    """Return the Parquet files of a folder, or those of its folder `data`, where the hub's repositories have them."""
    names = [folder.relative(info) for info in folder.list()]
    files = [folder.join(name) for name in names if name.endswith(".parquet")]
    if files or "data" not in names:
        return files
    if fence:
        fence.check(folder.join("data").path)
    return _parquet_in(folder.join("data"), fence)


def _match(file: Location) -> re.Match[str] | None:
    return _NAME.fullmatch(file.path.rpartition("/")[2])


def _check_all_there(folder: str, split: str, files: list[Location]) -> None:
    """Refuse a set of shards "-of-00005" that are not five."""
    counts = {match["count"] for file in files if (match := _match(file))}
    if counts != {None} and {int(count or 0) for count in counts} != {len(files)}:
        expected = ", ".join(sorted(count or "?" for count in counts))
        raise ValueError(f"{folder} has {len(files)} shards of {split}, their names say {expected}: not complete")


def read_shards(files: list[Location]) -> list[Shard]:
    """Read the footers of a split's files, several at a time; files without rows play no part.

    Raises:
        ValueError: One is unreadable, or lacks a column; or none has rows.
    """
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        shards = [shard for shard in pool.map(read_shard, files) if shard.num_rows]
    if files and not shards:
        raise ValueError(f"{files[0].name} has no rows, nor has any other file of its split")
    return shards


def read_shard(file: Location) -> Shard:
    """Read a file's footer.

    Raises:
        ValueError: It is unreadable, or lacks a column, or has images without a label.
    """
    metadata, footer, size = read_footer(file)
    schema = metadata.schema.to_arrow_schema()
    image_column = _check_columns(file.name, schema)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    images = [_column(group, f"{image_column}.bytes") for group in groups]
    return Shard(
        file=file,
        size=size,
        mtime_ns=file.info().mtime_ns,
        group_rows=tuple(group.num_rows for group in groups),
        largest_group=max((column.total_uncompressed_size for column in images), default=0),
        image_column=image_column,
        class_names=_class_names(file.name, schema.metadata or {}),
        labels=_label_range(file.name, [_column(group, LABEL_COLUMN).statistics for group in groups]),
        footer=footer_hash(footer),
    )


def image_bytes(chunks: Iterable[Any]) -> list[bytes | None]:
    """Return the image files of arrays of structs with a field `bytes`; None where there is none."""
    return [blob for chunk in chunks for blob in chunk.field("bytes").to_pylist()]


def check_labels(name: str, lowest: int, highest: int, num_classes: int) -> None:
    """Refuse labels that are no class.

    Raises:
        ValueError: They are not within 0 .. num_classes - 1.
    """
    if lowest < 0 or highest >= num_classes:
        raise ValueError(
            f"{name} has labels from {lowest} to {highest}; {num_classes} classes are 0 to {num_classes - 1}"
        )


def check_no_nulls(name: str, num_nulls: int) -> None:
    """Refuse rows without a label.

    Raises:
        ValueError: There are some.
    """
    if num_nulls:
        raise ValueError(f"{name} has {num_nulls} rows without a label")


def _check_columns(name: str, schema: Any) -> str:
    """Return the name of the image column."""
    present = f"it has {', '.join(f'{field.name}: {field.type}' for field in schema)}"
    image = next((column for column in IMAGE_COLUMNS if column in schema.names), None)
    if image is None:
        raise ValueError(f"{name} has no column {' or '.join(IMAGE_COLUMNS)}; {present}")
    kind = schema.field(image).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0 or not _is_binary(kind.field("bytes").type):
        raise ValueError(f"{name}: column {image} must be a struct with the field bytes: binary; {present}")
    if LABEL_COLUMN not in schema.names or not pa.types.is_integer(schema.field(LABEL_COLUMN).type):
        raise ValueError(f"{name} has no column {LABEL_COLUMN} of integers; {present}")
    return image


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _column(group: Any, path: str) -> Any:
    """Return what a row group's metadata say of a column."""
    columns = map(group.column, range(group.num_columns))
    return next(column for column in columns if column.path_in_schema == path)


def _class_names(name: str, metadata: dict[bytes, bytes]) -> tuple[str, ...] | None:
    """Return info.features.label.names of the metadata that the hub's library writes."""
    try:
        return _parse_class_names(metadata.get(b"huggingface", b"{}"))
    except ValueError as error:
        raise ValueError(f"{name}: the schema's metadata 'huggingface' is no JSON: {error}") from error


@lru_cache(maxsize=2)
def _parse_class_names(text: bytes) -> tuple[str, ...] | None:
    """The same of one text, which all shards of a set have: kept once."""
    value = json.loads(text)
    for key in ("info", "features", LABEL_COLUMN, "names"):
        value = value.get(key) if isinstance(value, dict) else None
    return tuple(map(str, value)) if isinstance(value, list) and value else None


def _label_range(name: str, statistics: list[Any]) -> tuple[int, int] | None:
    """Return the smallest and largest label by the statistics of all row groups, if all have them."""
    check_no_nulls(name, sum(each.null_count for each in statistics if each is not None and each.has_null_count))
    if not statistics or any(each is None or not each.has_min_max for each in statistics):
        return None
    return min(each.min for each in statistics), max(each.max for each in statistics)
