"""The job that writes Parquet: what it prints, refuses and leaves."""

from collections.abc import Callable
from pathlib import Path

import pytest

from inq_ray.cli import parquet as make_parquet

Job = Callable[..., tuple[int, str, str]]


@pytest.fixture
def job(capsys: pytest.CaptureFixture[str]) -> Job:
    """Runs the job; gives exit status, stdout and stderr."""

    def run(*flags: object) -> tuple[int, str, str]:
        status = make_parquet.main([str(flag) for flag in flags], "make_parquet")
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images of two classes to train on."""
    for number in range(10):
        path = tmp_path / "images" / "train" / f"n{number % 2}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(100_000))
    return tmp_path / "images"


def test_what_it_writes_it_says(job: Job, folder: Path, tmp_path: Path) -> None:
    status, out, err = job("--data", folder, "--output", tmp_path / "new", "--shard-size", 1, "--rows-per-group", 3)
    assert (status, err) == (0, "")
    shard = tmp_path / "new" / "train-00000-of-00001.parquet"
    assert out.splitlines() == ["train: 10 images, about 1 MB, 2 classes, 1 shard", f"{shard}: 10 images, 1.0 MB"]
    assert list((tmp_path / "new").iterdir()) == [shard]


def test_a_dry_run_writes_nothing(job: Job, folder: Path, tmp_path: Path) -> None:
    status, out, _ = job("--data", folder, "--output", tmp_path / "new", "--dry-run")
    assert (status, len(out.splitlines())) == (0, 1)
    assert not (tmp_path / "new").exists()


def test_shards_are_only_overwritten_when_asked(job: Job, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "new"
    output.mkdir()
    old = output / "validation-00000-of-00001.parquet"
    for path in (old, output / "train-00001-of-00002.parquet.partial", output / "notes.txt"):
        path.write_text("")
    status, out, err = job("--data", folder, "--output", output)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"make_parquet: {output} has shards ({output}/train-00001-of-00002.parquet.partial, ...)")
    assert old.exists()
    assert job("--data", folder, "--output", output, "--overwrite")[0] == 0
    assert sorted(path.name for path in output.iterdir()) == ["notes.txt", "train-00000-of-00001.parquet"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("", ["--data is missing: give --data DIR", "--output DIR"]),
        ("--data {}/images", ["--output is missing"]),
        ("--output", ["--output needs a value: a path"]),
        ("--data {}/images {}/new", ["--data takes one value"]),
        ("{}/images", ["images' follows no flag"]),
        ("--data {}/images --output {}/new --seed x", ["--seed takes a whole number from 0", "got 'x'"]),
        ("--data {}/images --output {}/new --overwrite yes", ["--overwrite takes no value, got 'yes'"]),
        ("--data {}/images --output {}/new --rows-per-group 0", ["--rows-per-group", "at least 1", "0"]),
        ("--data {}/images --output {}/new --shard-size 0", ["--shard-size", "at least 1"]),
        ("--data {}/images --output {}/new --shards 2", ["--shards", "--shard-size"]),
        ("--data {}/nowhere --output {}/new", ["{}/nowhere"]),
        ("--data {} --output {}/new", ["no folder of images at {}", "train/CLASS"]),
        ("--data http://a.b/c --output {}/new", ["http://a.b/c", "s3://"]),
        ("--data {}/images --output ftp://a.b/c", ["--output 'ftp://a.b/c'", "s3://"]),
        ("--data {}/images --output s3:/b/c", ["--output s3:/b/c: did you mean s3://b/c?"]),
        ("--data {}/images --output {}/new --seed -1", ["--seed must be at least 0, got -1"]),
    ],
)
def test_bad_flags_are_one_line(flags: str, says: list[str], job: Job, folder: Path, tmp_path: Path) -> None:
    status, out, err = job(*flags.replace("{}", str(tmp_path)).split())
    assert (status, out, len(err.splitlines())) == (2, "", 1), err
    assert err.startswith("make_parquet: ")
    for words in says:
        assert words.replace("{}", str(tmp_path)) in err
    assert not (tmp_path / "new").exists()


def test_a_folder_without_training_images_is_told(job: Job, folder: Path, tmp_path: Path) -> None:
    (folder / "train").rename(folder / "val")
    status, out, err = job("--data", folder, "--output", tmp_path / "new", "--dry-run")
    assert (status, err) == (0, f"make_parquet: note: no images in {folder}/train, writing validation only\n")
    assert out.startswith("validation: ")


def test_what_fails_under_way_is_one_line(
    job: Job, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("cannot write there:\nno space left on device")

    monkeypatch.setattr(make_parquet, "write_shards", fail)
    status, _, err = job("--data", folder, "--output", tmp_path / "new")
    assert (status, err) == (1, "make_parquet: cannot write there: no space left on device\n")
