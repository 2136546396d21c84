"""Parquet files in the layout of the Hugging Face hub: which belong to which split, and what their footers say."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMN = "label"
_NAME = re.compile(r"(?P<split>train|test|validation)(-.*?)?(-of-(?P<count>\d+))?\.parquet")


@dataclass(frozen=True)
class Shard:
    """One file, as its footer describes it.

    Attributes:
        path: Absolute.
        num_rows: Number of images.
        image_column: "image" or "img".
        class_names: From the schema's metadata; None where they are missing.
        labels: Smallest and largest label, where the footer has statistics.
        footer: The footer's bytes, hashed.
    """

    path: Path
    num_rows: int
    image_column: str
    class_names: tuple[str, ...] | None
    labels: tuple[int, int] | None
    footer: str


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what pyarrow and the system say of an unreadable file into one line that names it.

    Raises:
        ValueError: Reading failed within the block.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"cannot read {path}, damaged or no Parquet: {reason}") from error


def find_files(path: Path) -> dict[str, list[Path]]:
    """Return the Parquet files of each split: of a folder (or its folder `data`), or of one file's name alone.

    Raises:
        ValueError: There is nothing there, no Parquet of that name, or a shard is missing.
    """
    if not path.exists():
        raise ValueError(f"no such folder or file: {path} (or give 'digits', which scikit-learn ships)")
    folder = path / "data" if path.is_dir() and not any(path.glob("*.parquet")) else path
    splits: dict[str, list[Path]] = {}
    for file in [path] if path.is_file() else sorted(folder.glob("*.parquet")):
        if match := _NAME.fullmatch(file.name):
            splits.setdefault(match["split"], []).append(file.absolute())
    if not splits:
        raise ValueError(f"no Parquet of train, test or validation at {path}: files are named like train-*.parquet")
    for split, files in splits.items() if path.is_dir() else ():
        _check_all_there(split, files)
    return splits


def _check_all_there(split: str, files: list[Path]) -> None:
    """Refuse a set of shards "-of-00005" that are not five."""
    counts = {match["count"] for file in files if (match := _NAME.fullmatch(file.name))}
    if counts != {None} and {int(count or 0) for count in counts} != {len(files)}:
        expected = ", ".join(sorted(count or "?" for count in counts))
        raise ValueError(
            f"{files[0].parent} has {len(files)} shards of {split}, their names say {expected}: not complete"
        )


def read_shard(path: Path) -> Shard:
    """Read a file's footer.

    Raises:
        ValueError: It is unreadable, or lacks a column.
    """
    with readable(path):
        metadata = pq.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
        footer = _footer(path)
    return Shard(
        path=path,
        num_rows=metadata.num_rows,
        image_column=_check_columns(path, schema),
        class_names=_class_names(path, schema.metadata or {}),
        labels=_label_range(metadata),
        footer=hashlib.sha256(footer).hexdigest(),
    )


def check_labels(path: Path, lowest: int, highest: int, num_classes: int) -> None:
    """Refuse labels that are no class.

    Raises:
        ValueError: They are not within 0 .. num_classes - 1.
    """
    if lowest < 0 or highest >= num_classes:
        raise ValueError(
            f"{path} has labels from {lowest} to {highest}; {num_classes} classes are 0 to {num_classes - 1}"
        )


def _footer(path: Path) -> bytes:
    """Return the bytes of the footer: schema, sizes, offsets and statistics. The file ends in its length and "PAR1"."""
    with path.open("rb") as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, 2)
        return file.read(length)


def _check_columns(path: Path, schema: Any) -> str:
    """Return the name of the image column."""
    present = f"it has {', '.join(f'{field.name}: {field.type}' for field in schema)}"
    image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    if image is None:
        raise ValueError(f"{path} has no column {' or '.join(IMAGE_COLUMNS)}; {present}")
    kind = schema.field(image).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0 or not _is_binary(kind.field("bytes").type):
        raise ValueError(f"{path}: column {image} must be a struct with the field bytes: binary; {present}")
    if LABEL_COLUMN not in schema.names or not pa.types.is_integer(schema.field(LABEL_COLUMN).type):
        raise ValueError(f"{path} has no column {LABEL_COLUMN} of integers; {present}")
    return image


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(path: Path, metadata: dict[bytes, bytes]) -> tuple[str, ...] | None:
    """Return info.features.label.names of the metadata that the hub's library writes."""
    try:
        value = json.loads(metadata.get(b"huggingface", b"{}"))
    except ValueError as error:
        raise ValueError(f"{path}: the schema's metadata 'huggingface' is no JSON: {error}") from error
    for key in ("info", "features", LABEL_COLUMN, "names"):
        value = value.get(key) if isinstance(value, dict) else None
    return tuple(map(str, value)) if isinstance(value, list) and value else None


def _label_range(metadata: Any) -> tuple[int, int] | None:
    """Return the smallest and largest label by the statistics of all row groups, if all have them."""
    found: list[int] = []
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        columns = map(group.column, range(group.num_columns))
        statistics = next(column for column in columns if column.path_in_schema == LABEL_COLUMN).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        found += [statistics.min, statistics.max]
    return (min(found), max(found)) if found else None
