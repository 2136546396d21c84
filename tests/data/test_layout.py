"""Layouts as people have them: each is read, or a line says what is there."""

from pathlib import Path

import pytest

from inq_ray.data.source import open_source
from tests.data.folders import make_folder
from tests.data.parquet_files import random_images, write_parquet
from tests.data.pictures import encode

BLOBS = [encode(pixels) for pixels in random_images(6)]
LABELS = [0, 1, 2, 0, 1, 2]


def parquet(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_parquet(root / name, BLOBS, LABELS)
    return root


@pytest.mark.parametrize(
    "names",
    [
        ("train/0000.parquet", "test/0000.parquet"),
        ("default/train/0000.parquet", "default/validation/0000.parquet"),
        ("train/0_000000_000000.parquet", "val/0_000000_000000.parquet"),
        ("train-00000-of-00001.parquet", "val-00000-of-00001.parquet"),
        ("data/train-00000-of-00001.parquet", "data/valid-00000-of-00001.parquet"),
        ("Train.parquet", "Dev.parquet"),
        ("training_0.parquet", "eval_0.parquet"),
        ("a/b/train.parquet", "a/b/test.parquet"),
    ],
)
def test_parquet(tmp_path: Path, names: tuple[str, ...]) -> None:
    info = open_source(str(parquet(tmp_path, *names))).info
    assert (info.num_train, info.num_test) == (6, 6)


def test_files_named_as_on_the_hub_come_first(tmp_path: Path) -> None:
    names = ("train-0.parquet", "train_more.parquet", "validation-0.parquet", "val-0.parquet", "val-1.parquet")
    info = open_source(str(parquet(tmp_path, *names))).info
    assert (info.num_train, info.num_test) == (6, 6)


@pytest.mark.parametrize(
    "folders",
    [("Train", "Val"), ("TRAIN", "TEST"), ("train", "valid"), ("ILSVRC/Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/val")],
)
def test_folders(tmp_path: Path, folders: tuple[str, str]) -> None:
    files = {f"{folder}/{name}/{i}.png": BLOBS[i] for folder in folders for name in "ab" for i in range(2)}
    source = open_source(str(make_folder(tmp_path / "set", files)), index_folder=tmp_path / "index")
    assert (source.info.num_train, source.info.num_test, source.info.class_names) == (4, 4, ("a", "b"))


def test_several_sets_are_named(tmp_path: Path) -> None:
    root = parquet(tmp_path, "a/train.parquet", "b/train.parquet")
    with pytest.raises(
        ValueError, match=f"contains several sets of images: pass one of them with --data: {root}/a, {root}/b"
    ):
        open_source(str(root))


def test_what_is_there_is_listed(tmp_path: Path) -> None:
    make_folder(tmp_path, {"pictures/x.txt": b"", "all.parquet": b""})
    with pytest.raises(ValueError, match=r"there are no images at .* \(there: 'all.parquet', 'pictures/'\)"):
        open_source(str(tmp_path))


def test_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for data in ("owner/name-1.0", str(tmp_path / "owner/name-1.0")):
        with pytest.raises(
            ValueError, match=r"data are not downloaded automatically: .* 'hf download owner/name-1\.0 --repo-type"
        ):
            open_source(data)


def test_columns_are_of_parquet(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set", {"train/a/0.png": BLOBS[0]})
    with pytest.raises(ValueError, match="--label-column is for Parquet only"):
        open_source(str(root), label_column="fine")
