"""Parquet in the layout of the Hugging Face hub: pixels and labels exactly, and one clear line for what is wrong."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from inq_ray.data import decoded
from inq_ray.data.augment.crop_flip import CropFlip
from inq_ray.data.image_set import Split
from inq_ray.data.memory_set import ImageSet
from inq_ray.data.parquet import source as parquet
from inq_ray.data.preprocessing import Preprocessing
from inq_ray.data.source import open_source
from tests.data.parquet_files import CLASSES, random_images, write_dataset, write_parquet
from tests.data.pictures import encode

CIFAR10_TEST = "52d4fe637befcd5dc671f2ef4ca512b830e2e4fd545352bb59347c749868fd46"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty training images in two shards and seven test images, of 8x8."""
    folder = tmp_path / "data set"
    folder.mkdir()
    write_dataset(folder)
    return folder


def blobs(num: int, **options: Any) -> list[bytes]:
    return [encode(pixels) for pixels in random_images(num, **options)]


def in_memory(path: Path | str, split: Split) -> ImageSet:
    images = open_source(str(path)).split(split)
    assert isinstance(images, ImageSet)
    return images


def refusal(path: Path | str) -> str:
    """Return the one line with which opening or decoding fails."""
    with pytest.raises(ValueError, match=r".") as error:
        in_memory(path, "test")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_facts_come_without_decoding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "decode_shard", None)
    source = open_source(str(folder))
    info = source.info
    assert (info.num_train, info.num_test, info.num_classes, info.class_names) == (20, 7, 3, CLASSES)
    assert (info.channels, info.height, info.width) == (3, 8, 8)
    assert info.mean == (0.485, 0.456, 0.406)
    assert info.std == (0.229, 0.224, 0.225)
    assert not info.is_streamed


def test_pixels_and_labels_exactly(folder: Path) -> None:
    splits: tuple[Split, Split] = ("train", "test")
    for split, expected in zip(splits, (random_images(20), random_images(7, seed=1)), strict=True):
        images = in_memory(folder, split)
        assert images.crop_flip == CropFlip(padding=1, flip=True)
        assert images.images.dtype == torch.uint8
        assert np.array_equal(images.images.numpy(), expected.transpose(0, 3, 1, 2))
        assert images.labels.dtype == torch.int64
        assert images.labels.tolist() == [i % 3 for i in range(len(expected))]


def test_decoded_once_and_shared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = in_memory(folder, "train")
    monkeypatch.setattr(parquet, "decode_shard", None)
    second = in_memory(folder, "train")
    assert torch.equal(first.images, second.images)
    line = mapping_of(first.images.data_ptr())
    assert " r--s " in line  # read-only, shared with all who map the file
    assert line.endswith(".raw")


def mapping_of(address: int) -> str:
    """Return the kernel's line on the mapping that an address of this process lies in."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= address < high:
            return line
    raise AssertionError(f"no mapping of {address:#x}")


def test_changed_files_are_decoded_anew(folder: Path) -> None:
    before = open_source(str(folder))
    old = in_memory(folder, "test").images.clone()
    write_parquet(folder / "test-00000-of-00001.parquet", blobs(7, seed=9), [0] * 7)
    after = open_source(str(folder))
    assert not torch.equal(in_memory(folder, "test").images, old)
    assert after.info.fingerprint != before.info.fingerprint


def test_the_fingerprint_is_of_the_data_and_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
        os.utime(copy / file.name, (1, 1))
    assert open_source(str(copy)).info.fingerprint == open_source(str(folder)).info.fingerprint


def test_relative_paths_links_and_the_hubs_data_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert open_source("data set").info.num_train == 20
    (folder.parent / "repository").mkdir()
    (folder.parent / "repository" / "data").symlink_to(folder)
    assert open_source("repository", follow_links=True).info.num_test == 7


def test_a_test_file_alone_can_be_tested_on(folder: Path) -> None:
    source = open_source(str(folder / "test-00000-of-00001.parquet"))
    assert (source.info.num_train, source.info.num_test) == (0, 7)
    assert len(source.split("test")) == 7
    with pytest.raises(ValueError, match="no train split"):
        source.split("train")


def test_validation_stands_in_for_a_missing_or_unlabeled_test(folder: Path) -> None:
    test = folder / "test-00000-of-00001.parquet"
    write_parquet(folder / "validation-00000-of-00001.parquet", blobs(5), [1] * 5)
    assert open_source(str(folder)).info.num_test == 7
    write_parquet(test, blobs(7), [-1] * 7)
    assert open_source(str(folder)).info.num_test == 5
    test.unlink()
    assert in_memory(folder, "test").labels.tolist() == [1] * 5


def test_a_test_split_without_labels_stands_in_no_ones_way(folder: Path) -> None:
    """Images can be held out of training ones; where there is nothing else, it is said what is wrong."""
    write_parquet(folder / "test-00000-of-00001.parquet", blobs(7), [-1] * 7)
    info = open_source(str(folder)).info
    assert (info.num_train, info.num_test) == (20, 0)
    for shard in folder.glob("train-*"):
        shard.unlink()
    assert "has labels from -1 to -1" in refusal(folder)


def test_images_in_memory_are_normalized_as_the_preprocessing_says(folder: Path, tmp_path: Path) -> None:
    preprocessing = Preprocessing(mean=(0.5, 0.25, 0.25), std=(0.1, 0.2, 0.3))
    info = open_source(str(folder), preprocessing=preprocessing).info
    assert (info.is_streamed, info.mean, info.std) == (False, preprocessing.mean, preprocessing.std)
    (tmp_path / "gray").mkdir()
    write_parquet(tmp_path / "gray" / "test.parquet", [encode(random_images(1)[0, ..., 0])], [0], classes=None)
    info = open_source(str(tmp_path / "gray"), preprocessing=preprocessing).info
    assert (info.mean, info.std) == (pytest.approx((1 / 3,), abs=1e-6), (0.2,))


def test_column_img_gray_images_and_no_class_names(tmp_path: Path) -> None:
    gray = random_images(6)[..., 0]
    write_parquet(tmp_path / "test.parquet", list(map(encode, gray)), [0, 4, 1, 1, 0, 2], column="img", classes=None)
    source = open_source(str(tmp_path))
    assert source.info.class_names == ("0", "1", "2", "3", "4")
    images = in_memory(tmp_path, "test")
    assert (source.info.channels, source.info.mean, images.crop_flip.flip) == (1, (0.449,), False)
    assert np.array_equal(images.images.numpy(), gray[:, None])


def test_gray_images_among_colors_become_colors(tmp_path: Path) -> None:
    images = random_images(3)
    write_parquet(tmp_path / "test.parquet", [encode(images[0][..., 0]), encode(images[1])], [0, 1])
    decoded = in_memory(tmp_path, "test").images
    assert decoded.shape == (2, 3, 8, 8)
    assert torch.equal(decoded[0, 0], decoded[0, 2])


def test_nothing_there(tmp_path: Path) -> None:
    assert f"{tmp_path / 'digit'}" in refusal(tmp_path / "digit")
    assert "no data given" in refusal("")
    assert f"at {tmp_path}" in refusal(tmp_path)
    (tmp_path / "other.parquet").write_bytes(b"")
    assert "named like train-*.parquet" in refusal(tmp_path)
    assert "named like train-*.parquet" in refusal(tmp_path / "other.parquet")


def test_no_test_split(folder: Path) -> None:
    (folder / "test-00000-of-00001.parquet").unlink()
    source = open_source(str(folder))
    assert (source.info.num_train, source.info.num_test) == (20, 0)
    assert f"{folder} has no test split" in refusal(folder)


def test_a_missing_shard(folder: Path) -> None:
    (folder / "train-00001-of-00002.parquet").unlink()
    assert "1 shard of train, but their names count 00002: incomplete" in refusal(folder)


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    path = folder / "train-00001-of-00002.parquet"
    path.unlink()
    os.mkfifo(path)
    assert f"cannot read {path}: a device or a pipe, not a file" in refusal(folder)


@pytest.mark.parametrize("size", [0, 3, 11, 500, -1])
def test_truncated_files(folder: Path, size: int) -> None:
    path = folder / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:size])
    assert f"cannot read {path}, which is damaged or not Parquet" in refusal(folder)


def test_damaged_pages(folder: Path) -> None:
    """The footer is whole, so only decoding can tell; nothing half-made stays behind."""
    path = folder / "test-00000-of-00001.parquet"
    data = bytearray(path.read_bytes())
    data[4:400] = bytes(396)
    path.write_bytes(data)
    for _ in range(2):
        assert str(path) in refusal(folder)


def test_columns(folder: Path) -> None:
    path = folder / "test-00000-of-00001.parquet"
    write_parquet(path, blobs(2), [0, 1], column="picture")
    assert "no column image or img: name the column of images with --image-column (columns with bytes: 'picture')" in (
        refusal(folder)
    )
    write_parquet(path, blobs(2), [0, 1], label="fine_label")
    assert "has no column label: name the column of labels with --label-column (integers or texts: 'fine_label')" in (
        refusal(folder)
    )
    pq.write_table(pa.table({"image": ["a.png", "b.png"], "label": [0, 1]}), path)
    assert "column image must be binary, or a struct with the field bytes: binary" in refusal(folder)
    pq.write_table(pa.table({"image": [{"bytes": b""}], "label": [0.5]}), path)
    assert "column label is double, but labels are integers or texts" in refusal(folder)


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
@pytest.mark.parametrize("statistics", [True, False])
def test_labels_out_of_range(folder: Path, labels: list[int], statistics: bool) -> None:
    path = folder / "test-00000-of-00001.parquet"
    write_parquet(path, blobs(2), labels, write_statistics=statistics)
    assert f"{path} has labels from {labels[0]} to {labels[1]}; 3 classes are 0 to 2" in refusal(folder)


def test_missing_labels_and_images(folder: Path) -> None:
    path = folder / "test-00000-of-00001.parquet"
    write_parquet(path, blobs(2), [0, None])
    assert f"{path} has 1 row without a label" in refusal(folder)
    write_parquet(path, [*blobs(1), None], [0, 1])
    assert f"{path}, row 1: the row has no image bytes" in refusal(folder)
    write_parquet(path, [], [], write_statistics=False)
    assert f"{path} has no rows" in refusal(folder)


def test_other_class_names(folder: Path) -> None:
    write_parquet(folder / "train-00001-of-00002.parquet", blobs(10), [0] * 10, classes=["a", "b", "c"])
    assert "has other class names than" in refusal(folder)


def test_a_broken_image_is_named(folder: Path) -> None:
    path = folder / "test-00000-of-00001.parquet"
    good = blobs(150)
    write_parquet(path, [*good[:140], good[140][:60], *good[141:]], [0] * 150, row_group_size=50)
    assert f"{path}, row 140: the image is damaged" in refusal(folder)


def test_images_of_unequal_size(folder: Path) -> None:
    path = folder / "test-00000-of-00001.parquet"
    write_parquet(path, [*blobs(50), *blobs(1, height=9)], [0] * 51, row_group_size=100)
    assert f"{path}, row 50: the image is 8x9, the first ones are 8x8" in refusal(folder)


@pytest.mark.parametrize("row", [48, 400])
def test_images_of_another_size_further_on_are_found_before_the_start(folder: Path, row: int) -> None:
    """Of each of some row groups the first images are looked at."""
    path = folder / "train-00001-of-00002.parquet"
    images = blobs(404)
    images[row] = blobs(1, height=9)[0]
    write_parquet(path, images, [0] * 404, row_group_size=4 if row < 100 else 100)
    source = open_source(str(folder))
    assert source.info.is_streamed == (row == 400)  # among 101 row groups of 4, one may be passed over
    if source.info.is_streamed:
        (note,) = source.notes
        assert "images of 8x8 to 8x9 pixels are resized to 256" in note
        assert not source.peek("train").bad


def test_images_further_on_that_cannot_be_read_are_found_before_the_start(folder: Path) -> None:
    path = folder / "train-00001-of-00002.parquet"
    write_parquet(path, [*blobs(101)[:100], b"no image"], [0] * 101, row_group_size=50)
    (bad,) = open_source(str(folder)).peek("train").bad
    assert bad.name == f"{path}, row 100"


def test_what_is_kept_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of one small size, if they fit; else they are streamed, as the preprocessing says."""
    preprocessing = Preprocessing(crop_size=5, mean=(0.5, 0.5, 0.5))
    monkeypatch.setattr(decoded, "MAX_BYTES", 20 * 192)
    assert not open_source(str(folder), preprocessing=preprocessing).info.is_streamed
    monkeypatch.setattr(decoded, "MAX_BYTES", 20 * 192 - 1)
    info = open_source(str(folder), preprocessing=preprocessing).info
    assert (info.is_streamed, info.channels, info.height, info.width, info.mean) == (True, 3, 5, 5, (0.5, 0.5, 0.5))
    monkeypatch.undo()
    path = folder / "test-00000-of-00001.parquet"
    for height, is_streamed in ((96, False), (97, True)):
        for part in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
            write_parquet(folder / f"{part}.parquet", blobs(3, height=height), [0] * 3)
        assert open_source(str(folder)).info.is_streamed == is_streamed
    write_parquet(path, [*blobs(2), *blobs(1, height=9)], [0] * 3)
    assert open_source(str(folder)).info.is_streamed


def test_cifar10(shared_data: Path) -> None:
    source = open_source(str(shared_data / "cifar10"))
    info = source.info
    assert (info.num_train, info.num_test, info.num_classes, info.class_names[3]) == (50_000, 10_000, 10, "cat")
    assert (info.channels, info.height, info.width) == (3, 32, 32)
    test = in_memory(shared_data / "cifar10", "test")
    assert test.crop_flip == CropFlip(padding=4, flip=True)
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    means = test.images.double().mean((0, 2, 3)) / 255
    assert means.tolist() == pytest.approx([0.4942, 0.4851, 0.4504], abs=1e-4)  # the known means of the test set
    assert hashlib.sha256(test.images.numpy().tobytes()).hexdigest() == CIFAR10_TEST
