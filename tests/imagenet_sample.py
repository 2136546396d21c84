"""ImageNet's layout from the sample beside the checkout: train/WNID/*.JPEG and val/WNID/*.JPEG, or Parquet of both."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# Every fifth image is for validation; so that both splits have all classes, images are sorted into a few by number.
NUM_CLASSES = 10
_EVERY = 5


def write_folder(sample: Path, folder: Path) -> Path:
    """Write the 250 images as files: 200 to train on, 50 to validate on, 10 classes."""
    for number, (data, _) in enumerate(_rows(sample)):
        split = "val" if number % _EVERY == 0 else "train"
        path = folder / split / f"n{number // _EVERY % NUM_CLASSES:08d}" / f"{number:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_parquet(sample: Path, folder: Path) -> Path:
    """Write the same as Parquet: two shards to train on, one to validate on, row groups of 16."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(data, path, number // _EVERY % NUM_CLASSES) for number, (data, path) in enumerate(_rows(sample))]
    train = [row for number, row in enumerate(rows) if number % _EVERY]
    _write(train[:100], folder / "train-00000-of-00002.parquet")
    _write(train[100:], folder / "train-00001-of-00002.parquet")
    _write(rows[::_EVERY], folder / "validation-00000-of-00001.parquet")
    return folder


def _rows(sample: Path) -> list[tuple[bytes, str]]:
    """Bytes and path of each image."""
    tables = [pq.read_table(path, columns=["image"]) for path in sorted(sample.glob("train-*.parquet"))]
    return [(row["bytes"], row["path"]) for table in tables for row in table.column("image").to_pylist()]


def _write(rows: list[tuple[bytes, str, int]], path: Path) -> None:
    names = [f"n{number:08d}" for number in range(NUM_CLASSES)]
    info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={b"huggingface": json.dumps(info).encode()},
    )
    table = pa.table(
        {
            "image": [{"bytes": data, "path": name} for data, name, _ in rows],
            "label": [label for _, _, label in rows],
        },
        schema=schema,
    )
    pq.write_table(table, path, row_group_size=16)
