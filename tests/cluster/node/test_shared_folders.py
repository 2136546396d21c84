"""Folders that all nodes have to see, without a cluster."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inq_ray.cluster.node import shared_folders
from inq_ray.cluster.node.shared_folders import check_seen, folders_of
from inq_ray.training.attempt import begun
from inq_ray.training.config import RunConfig


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_folders, "_WAIT_SECONDS", 0.2)


def config_at(folder: Path, **output: Any) -> RunConfig:
    return RunConfig().replace(output={"storage_path": str(folder / "runs"), "name": "run", **output})


@contextlib.contextmanager
def marked(folders: dict[str, Path]) -> Iterator[str]:
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    with begun(folders, pytest.fail) as name:
        yield name


def test_what_is_shared_is_seen_and_nothing_is_left(tmp_path: Path) -> None:
    config = config_at(tmp_path, checkpoint_path=str(tmp_path / "kept"))
    with marked(folders_of(config)) as name:
        check_seen(folders_of(config), name)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert sorted(path.parent for path in files) == [tmp_path / "kept/run", tmp_path / "runs/run"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("flag", "field"), [("--storage-path", "storage_path"), ("--checkpoint-path", "checkpoint_path")]
)
def test_a_folder_of_the_same_name_on_another_disk_is_not_the_same(flag: str, field: str, tmp_path: Path) -> None:
    """Another node is played by another path; a run of the same name lies there, with what a killed driver left."""
    config = config_at(tmp_path, checkpoint_path=str(tmp_path / "kept"))
    there = config.replace(output={field: str(tmp_path / "there")})
    with marked(folders_of(config)) as name:
        there_run = tmp_path / "there" / "run"
        there_run.mkdir(parents=True)
        (there_run / f"{name}0").touch()
        with pytest.raises(ValueError, match=rf"^node [0-9.]+ does not see .*there/run: {flag} must be") as refused:
            check_seen(folders_of(there), name)
        assert len(str(refused.value).splitlines()) == 1
    with marked(folders_of(there)):
        assert not (there_run / f"{name}0").exists()


def test_object_stores_are_not_asked(tmp_path: Path) -> None:
    config = config_at(tmp_path, checkpoint_path="s3://bucket/of/nobody")
    with marked(folders_of(config)) as name:
        check_seen(folders_of(config), name)
