from pathlib import Path

import pytest

from inq_ray.training.flags.parse import parse
from inq_ray.training.flags.paths import with_absolute_paths


def test_relative_paths_mean_the_folder_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = with_absolute_paths(parse(["--data", "d", "--weights", "w.pth", "--storage-path", "s"]).run)
    assert (home.data.data, home.network.weights) == (f"{tmp_path}/d", f"{tmp_path}/w.pth")
    assert home.output.storage_path == f"{tmp_path}/s"
    assert (home.output.checkpoint_path, home.output.resume) == (None, "auto")
    assert with_absolute_paths(home) == home


def test_checkpoints_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = with_absolute_paths(parse(["--checkpoint-path", "c", "--resume", "r/checkpoint-01-0000-00000002"]).run)
    assert home.output.checkpoint_path == f"{tmp_path}/c"
    assert home.output.resume == f"{tmp_path}/r/checkpoint-01-0000-00000002"
    there = with_absolute_paths(parse(["--checkpoint-path", "s3://b/c", "--resume", "s3://b/c/x"]).run)
    assert (there.output.checkpoint_path, there.output.resume) == ("s3://b/c", "s3://b/c/x")


@pytest.mark.parametrize(
    ("data", "weights"),
    [("digits", "DEFAULT"), ("s3://bucket/imagenet", "IMAGENET1K_V1"), ("gs://b/*.parquet", "a1_in1k")],
)
def test_names_and_addresses_are_no_paths(data: str, weights: str) -> None:
    config = with_absolute_paths(parse(["--data", data, "-a", "resnet18", "--weights", weights]).run)
    assert (config.data.data, config.network.weights) == (data, weights)


def test_a_file_that_is_there_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("DEFAULT").touch()
    assert with_absolute_paths(parse(["--weights", "DEFAULT"]).run).network.weights == f"{tmp_path}/DEFAULT"


@pytest.mark.parametrize("flag", ["--data", "--storage-path", "--checkpoint-path", "--resume"])
@pytest.mark.parametrize(
    ("path", "told"),
    [("", "'' is not a path: name one"), ("s3:/b/c", r"s3:/b/c: did you mean s3://b/c\? For a folder, put \./ before")],
    ids=["empty", "one slash"],
)
def test_what_an_unset_variable_or_a_slip_leaves_is_no_path(flag: str, path: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{flag} {told}"):
        with_absolute_paths(parse([flag, path]).run)


def test_a_folder_named_like_an_address_can_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert with_absolute_paths(parse(["--storage-path", "./s3:/b"]).run).output.storage_path == f"{tmp_path}/s3:/b"
