"""Parquet files in the layout of the Hugging Face hub: assignment to splits, and contents of their footers."""

import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.fs as pafs

from inq_ray.data.parquet.access import footer_hash, read_footer
from inq_ray.data.parquet.labels import is_name, is_number, read_values
from inq_ray.files.shown import counted
from inq_ray.storage.address import Location
from inq_ray.storage.fence import Fence
from inq_ray.storage.pattern import expand, fixed_part
from inq_ray.storage.retry import MissingError

_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMN = "label"
NO_BYTES = "the row has no image bytes, perhaps only a path; write the image file's bytes into the column"
_NAME = re.compile(r"(?P<split>train|test|validation)(-.*?)?(-of-\d+)?\.parquet")
# Names in other layouts, used for splits without a file named as on the hub.
_OTHER_NAME = re.compile(r"(?P<split>[a-z]+)([-_.].*)?\.parquet", re.IGNORECASE)
_COUNT = re.compile(r"-of-(\d+)\.parquet")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("validation", "val", "valid", "dev", "eval"), "validation"),
}
_NUM_THREADS = 16
_NUM_NAMED = 6


class Columns(NamedTuple):
    """Column names; None = the defaults, "image" or "img", and "label"."""

    image: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Shard:
    """One file, as described by its footer.

    Attributes:
        file: Location.
        size: Size, bytes.
        mtime_ns: Modification time, if the storage has one.
        group_rows: Number of images in each row group.
        largest_group: Bytes of images in the largest row group.
        image_path: Column of images, or its field `bytes` if it is a struct.
        label_column: Column of labels.
        class_names: Class names in the schema's metadata; None if missing.
        labels: Smallest and largest numeric label, if the footer has statistics or all labels were read.
        label_values: All distinct labels, if they were read: numbers without class names, or texts.
        footer: Hash of the footer's bytes.
    """

    file: Location
    size: int
    mtime_ns: int | None
    group_rows: tuple[int, ...]
    largest_group: int
    image_path: str
    label_column: str
    class_names: tuple[str, ...] | None
    labels: tuple[int, int] | None
    label_values: frozenset[int] | frozenset[str] | None
    footer: str

    @property
    def num_rows(self) -> int:
        """Number of images."""
        return sum(self.group_rows)

    @property
    def has_names(self) -> bool:
        """Whether labels are texts."""
        return any(isinstance(value, str) for value in self.label_values or ())


def find_files(data: str, *, follow_links: bool = False) -> dict[str, list[Location]]:
    """Return the Parquet files of each split, in a folder (or its folder `data`), or of one file or glob.

    In a folder, files are named by their split, such as train-00000-of-00002.parquet or val.parquet, or are in a folder
    of that name, such as train/0000.parquet.

    Args:
        data: Path or address; may itself be a link.
        follow_links: Whether links in the folder, or in the fixed part of a glob, may lead out of it.

    Raises:
        ValueError: Nothing exists there, no Parquet file has such a name, a shard is missing, or a link leads out of
            the folder.
    """
    places = expand(data)
    is_folder = len(places) == 1 and places[0].info().type == pafs.FileType.Directory
    fence = places[0].fence(follow_links=follow_links)
    if fence and not is_folder:
        folder = fixed_part(data)
        fence = Fence.around(folder) if folder is not None else None
    splits = _by_name(_parquet_in(places[0], fence) if is_folder else places)
    if is_folder and not splits:
        splits = _by_folder(places[0])
    if fence:
        for file in (file for files in splits.values() for file in files):
            fence.check(file.path)
    if not splits:
        raise MissingError(f"there are no images at {data}{_holds(places[0]) if is_folder else ''}")
    for split, files in splits.items() if is_folder else ():
        _check_all_there(data, split, files)
    return splits


def _parquet_in(folder: Location, fence: Fence | None) -> list[Location]:
    """Return the Parquet files of a folder, or of its folder `data`, as in the hub's repositories."""
    names = [folder.relative(info) for info in folder.list()]
    files = [folder.join(name) for name in names if name.endswith(".parquet")]
    if files or "data" not in names:
        return files
    if fence:
        fence.check(folder.join("data").path)
    return _parquet_in(folder.join("data"), fence)


def has_parquet(folder: Location) -> bool:
    """Return whether a folder has Parquet files with the name of a split; see `find_files`."""
    return bool(_by_name(_parquet_in(folder, None)) or _by_folder(folder))


def _holds(folder: Location) -> str:
    """Return the contents of a folder, for a message."""
    names = [folder.relative(info) + "/" * (info.type == pafs.FileType.Directory) for info in folder.list()]
    return f" (there: {_some(names)})"


def _by_name(files: list[Location]) -> dict[str, list[Location]]:
    splits: dict[str, list[Location]] = {}
    for pattern in (_NAME, _OTHER_NAME):
        found: dict[str, list[Location]] = {}
        for file in files:
            match = pattern.fullmatch(file.path.rpartition("/")[2])
            if match and (split := _SPLITS.get(match["split"].lower())):
                found.setdefault(split, []).append(file)
        splits = found | splits
    return splits


def _by_folder(folder: Location) -> dict[str, list[Location]]:
    splits: dict[str, list[Location]] = {}
    for info in folder.list():
        name = folder.relative(info)
        if info.type == pafs.FileType.Directory and (split := _SPLITS.get(name.lower())):
            below = folder.join(name)
            files = [below.join(below.relative(each)) for each in below.list()]
            splits.setdefault(split, []).extend(file for file in files if file.path.endswith(".parquet"))
    return {split: files for split, files in splits.items() if files}


def _check_all_there(folder: str, split: str, files: list[Location]) -> None:
    """Refuse a set of shards named "-of-00005" that are not five."""
    counts = {match[1] if (match := _COUNT.search(file.path)) else None for file in files}
    if counts != {None} and {int(count or 0) for count in counts} != {len(files)}:
        expected = ", ".join(sorted(count or "?" for count in counts))
        raise ValueError(
            f"{folder} has {counted(len(files), 'shard')} of {split}, but their names count {expected}: incomplete"
        )


def read_shards(files: list[Location], columns: Columns = Columns()) -> list[Shard]:  # noqa: B008
    """Read the footers of a split's files, several at a time; files without rows are left out.

    Args:
        files: The files.
        columns: Names of the columns.

    Raises:
        ValueError: A file is unreadable or lacks a column; or no file has rows.
    """
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        shards = [shard for shard in pool.map(partial(read_shard, columns=columns), files) if shard.num_rows]
    if files and not shards:
        raise ValueError(f"{files[0].name} has no rows, and neither has any other file of its split")
    return shards


def read_shard(file: Location, columns: Columns) -> Shard:
    """Read a file's footer, and its distinct labels if classes have no names there.

    Raises:
        ValueError: The file is unreadable, lacks a column, or has images without a label.
    """
    metadata, footer, size = read_footer(file)
    schema = metadata.schema.to_arrow_schema()
    image_path, label = _image_path(file.name, schema, columns.image), _label_column(file.name, schema, columns.label)
    class_names = _class_names(file.name, schema.metadata or {}, label)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    images = [_column(group, image_path) for group in groups]
    labels = _label_range(file.name, [_column(group, label).statistics for group in groups])
    values = None
    if class_names is None or is_name(schema.field(label).type):
        values, num_nulls = read_values(file, footer_hash(footer), len(groups), label)
        check_no_nulls(file.name, num_nulls)
        labels = None if is_name(schema.field(label).type) or not values else (min(values), max(values))
    return Shard(
        file=file,
        size=size,
        mtime_ns=file.info().mtime_ns,
        group_rows=tuple(group.num_rows for group in groups),
        largest_group=max((column.total_uncompressed_size for column in images), default=0),
        image_path=image_path,
        label_column=label,
        class_names=class_names,
        labels=labels,
        label_values=values,
        footer=footer_hash(footer),
    )


def image_bytes(chunks: Iterable[Any]) -> list[bytes | None]:
    """Return the image files in arrays, or in structs with a field `bytes`; None for rows without one."""
    chunks = (chunk.field("bytes") if pa.types.is_struct(chunk.type) else chunk for chunk in chunks)
    return [blob for chunk in chunks for blob in chunk.to_pylist()]


def check_labels(name: str, lowest: int, highest: int, num_classes: int) -> None:
    """Refuse labels that are not classes.

    Raises:
        ValueError: Labels are not within 0 .. num_classes - 1.
    """
    if lowest < 0 or highest >= num_classes:
        raise ValueError(
            f"{name} has labels from {lowest} to {highest}; {num_classes} classes are 0 to {num_classes - 1}"
        )


def check_no_nulls(name: str, num_nulls: int) -> None:
    """Refuse rows without a label.

    Raises:
        ValueError: There are such rows.
    """
    if num_nulls:
        raise ValueError(f"{name} has {counted(num_nulls, 'row')} without a label")


def _image_path(name: str, schema: Any, asked: str | None) -> str:
    """Return the column of images, by --image-column or its usual name, or its field `bytes` if it is a struct."""
    column = asked or next((column for column in _IMAGE_COLUMNS if column in schema.names), None)
    if column is None or column not in schema.names:
        could_be = [field.name for field in schema if _is_image(field.type)]
        raise ValueError(
            f"{name} has no column {asked or ' or '.join(_IMAGE_COLUMNS)}: name the column of images with "
            f"--image-column (columns with bytes: {_some(could_be)})"
        )
    kind = schema.field(column).type
    if not _is_image(kind):
        raise ValueError(
            f"{name}: column {column} must be binary, or a struct with the field bytes: binary; it is {str(kind)[:100]}"
        )
    return f"{column}.bytes" if pa.types.is_struct(kind) else column


def _label_column(name: str, schema: Any, asked: str | None) -> str:
    """Return the column of labels, by --label-column or its usual name."""
    column = asked or _LABEL_COLUMN
    could_be = [field.name for field in schema if is_number(field.type) or is_name(field.type)]
    if column not in schema.names:
        raise ValueError(
            f"{name} has no column {column}: name the column of labels with --label-column (integers or texts: "
            f"{_some(could_be)})"
        )
    if column not in could_be:
        raise ValueError(
            f"{name}: column {column} is {str(schema.field(column).type)[:100]}, but labels are integers or texts: "
            f"name another with --label-column ({_some(could_be)})"
        )
    return column


def _some(names: list[str]) -> str:
    return ", ".join(repr(name)[:40] for name in names[:_NUM_NAMED]) + ", ..." * (len(names) > _NUM_NAMED) or "none"


def _is_image(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: Any) -> bool:
    # Null, if no row has bytes: this is reported for the rows.
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind))


def _column(group: Any, path: str) -> Any:
    """Return a row group's metadata of a column."""
    columns = map(group.column, range(group.num_columns))
    return next(column for column in columns if column.path_in_schema == path)


def _class_names(name: str, metadata: dict[bytes, bytes], label: str) -> tuple[str, ...] | None:
    """Return info.features.LABEL.names of the metadata that the hub's library writes."""
    try:
        return _parse_class_names(metadata.get(b"huggingface", b"{}"), label)
    except ValueError as error:
        raise ValueError(f"{name}: the schema's metadata 'huggingface' is not JSON: {error}") from error


@lru_cache(maxsize=2)
def _parse_class_names(text: bytes, label: str) -> tuple[str, ...] | None:
    """Return the same for one text, cached because all shards of a set have it."""
    value = json.loads(text)
    for key in ("info", "features", label, "names"):
        value = value.get(key) if isinstance(value, dict) else None
    return tuple(map(str, value)) if isinstance(value, list) and value else None


def _label_range(name: str, statistics: list[Any]) -> tuple[int, int] | None:
    """Return the smallest and largest label in the statistics of all row groups, if all have them."""
    check_no_nulls(name, sum(each.null_count for each in statistics if each is not None and each.has_null_count))
    if not statistics or any(each is None or not each.has_min_max for each in statistics):
        return None
    return min(each.min for each in statistics), max(each.max for each in statistics)
