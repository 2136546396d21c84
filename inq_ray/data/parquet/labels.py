"""Labels in Parquet: numbers as they are; texts and booleans by the index of their class among sorted names."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from inq_ray.data.parquet.access import read_groups
from inq_ray.storage.address import Location


def is_number(kind: Any) -> bool:
    """Return whether labels of an Arrow type are class numbers."""
    return bool(pa.types.is_integer(_plain(kind)))


def is_name(kind: Any) -> bool:
    """Return whether labels of an Arrow type are class names."""
    kind = _plain(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind))


def numbers(column: Any, class_names: Sequence[str]) -> Any:
    """Return the labels of a column as an Arrow array of integers; null if missing or not a class."""
    values = _decoded(column)
    return pc.index_in(values, value_set=pa.array(class_names, pa.string())) if is_name(column.type) else values


def read_values(file: Location, footer: str, num_groups: int, column: str) -> tuple[frozenset[Any], int]:
    """Read the distinct labels of a file, texts or integers, and the number of rows without one.

    Raises:
        ValueError: The file cannot be read, is damaged, or has changed.
    """
    values = _decoded(read_groups(file, footer, range(num_groups), [column]).column(0))
    return frozenset(values.unique().to_pylist()) - {None}, values.null_count


def _plain(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _decoded(column: Any) -> Any:
    """Return integers as they are, and everything else as texts, without a dictionary."""
    kind = _plain(column.type)
    return column.cast(pa.string() if is_name(kind) else kind)
