"""Small Parquet files in the layout of the Hugging Face hub, made by tests."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.pictures import encode

CLASSES = ("cat", "dog", "frog")


def random_images(num: int, seed: int = 0, height: int = 8, width: int = 8) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return uint8 [num, height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


def write_parquet(
    path: Path,
    blobs: Sequence[bytes | None],
    labels: Sequence[int | None],
    *,
    column: str = "image",
    label: str = "label",
    classes: Sequence[str] | None = CLASSES,
    row_group_size: int = 4,
    **options: Any,
) -> None:
    """Write a shard."""
    images = pa.array(
        [{"bytes": blob, "path": None} for blob in blobs], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    table = pa.table({column: images, label: pa.array(labels, pa.int64())})
    if classes is not None:
        features = {column: {"_type": "Image"}, "label": {"names": list(classes), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=row_group_size, **options)


def write_dataset(folder: Path, *, num_train: int = 20, num_test: int = 7) -> None:
    """Write two training shards and a test shard, labels 0, 1, 2, 0, ..."""
    train, test = random_images(num_train), random_images(num_test, seed=1)
    half = num_train // 2
    for number, part in enumerate((range(half), range(half, num_train))):
        write_parquet(
            folder / f"train-0000{number}-of-00002.parquet", [encode(train[i]) for i in part], [i % 3 for i in part]
        )
    write_parquet(folder / "test-00000-of-00001.parquet", list(map(encode, test)), [i % 3 for i in range(num_test)])
