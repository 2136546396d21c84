"""Labels as people have them, small images in memory and large ones read when asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from inq_ray.data.source import open_source
from tests.data.parquet_files import random_images
from tests.data.pictures import encode

TEXTS = ["dog", "cat", "emu", "cat"]


def write(
    root: Path, labels: Any, test_labels: Any = None, *, side: int = 8, label: str = "label", **options: Any
) -> Path:
    blobs = [encode(pixels) for pixels in random_images(len(labels), height=side, width=side)]
    images = options.pop("images", None) or [{"bytes": blob, "path": None} for blob in blobs]
    for split, values in (("train", labels), ("test", labels if test_labels is None else test_labels)):
        table = pa.table(
            {options.get("image", "image"): images[: len(values)], label: values, "other": list(range(len(values)))}
        )
        pq.write_table(
            table, root / f"{split}.parquet", row_group_size=2, write_statistics=options.get("statistics", True)
        )
    return root


def labels_of(root: Path, **options: Any) -> tuple[tuple[str, ...], list[int]]:
    source = open_source(str(root), **options)
    images = source.split("train")
    return source.info.class_names, images.fetch(torch.arange(len(images)), None).labels.tolist()


@pytest.mark.parametrize("side", [8, 100])
@pytest.mark.parametrize("form", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_texts_are_numbered_in_sorted_order(tmp_path: Path, form: Any, side: int) -> None:
    assert labels_of(write(tmp_path, pa.array(TEXTS).cast(form), side=side)) == (("cat", "dog", "emu"), [1, 0, 2, 0])


@pytest.mark.parametrize("side", [8, 100])
def test_truth_values(tmp_path: Path, side: int) -> None:
    assert labels_of(write(tmp_path, [True, False, True], side=side)) == (("false", "true"), [1, 0, 1])


def test_a_text_to_test_on_that_nothing_was_trained_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"test\.parquet has 1 labels that are not in training: 'yak'"):
        open_source(str(write(tmp_path, TEXTS, ["cat", "yak"])))


@pytest.mark.parametrize("statistics", [True, False])
def test_numbers_without_names(tmp_path: Path, statistics: bool) -> None:
    assert labels_of(write(tmp_path, [2, 0, 1], statistics=statistics)) == (("0", "1", "2"), [2, 0, 1])
    with pytest.raises(ValueError, match="labels are from 1 to 3, but classes are numbered from 0"):
        open_source(str(write(tmp_path, [1, 2, 3], statistics=statistics)))
    with pytest.raises(ValueError, match="labels go up to 5, and no image has '1', '3', '4': classes must be numbered"):
        open_source(str(write(tmp_path, [0, 2, 5], statistics=statistics)))


def test_only_what_is_tested_on_may_leave_classes_out(tmp_path: Path) -> None:
    root = write(tmp_path, [0, 2, 5])
    (root / "train.parquet").unlink()
    assert open_source(str(root)).info.num_classes == 6


def test_columns_by_name(tmp_path: Path) -> None:
    root = write(tmp_path, [1, 0], label="fine", image="picture")
    assert labels_of(root, image_column="picture", label_column="fine") == (("0", "1"), [1, 0])
    with pytest.raises(
        ValueError, match=r"has no column coarse: name the column of labels with --label-column .*'fine', 'oth"
    ):
        open_source(str(root), image_column="picture", label_column="coarse")


@pytest.mark.parametrize("side", [8, 100])
def test_a_column_of_bytes(tmp_path: Path, side: int) -> None:
    pixels = random_images(2, height=side, width=side)
    source = open_source(str(write(tmp_path, [1, 0], images=[encode(each) for each in pixels])))
    assert not source.peek("train").bad
    assert source.info.is_streamed == (side == 100)
    if side == 8:
        assert np.array_equal(source.split("train").fetch(torch.arange(2), None).images, pixels.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("side", [8, 100])
def test_columns_of_a_flattened_table(tmp_path: Path, side: int) -> None:
    """As pandas' json_normalize names the fields of a struct."""
    pixels = [encode(each) for each in random_images(2, height=side, width=side)]
    root = write(tmp_path, [1, 0], images=pixels, image="image.bytes", label="label.number", side=side)
    assert labels_of(root, image_column="image.bytes", label_column="label.number") == (("0", "1"), [1, 0])


def test_rows_without_bytes_are_found_before_a_run(tmp_path: Path) -> None:
    seen = open_source(str(write(tmp_path, [1, 0], images=[{"bytes": None, "path": "a.png"}] * 2))).peek("train")
    assert len(seen.bad) == 2
    assert "the row has no image bytes" in seen.bad[0].reason
