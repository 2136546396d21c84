"""What keeps workers of an earlier attempt, and those whose storage is away, from writing."""

from pathlib import Path

import pytest

from inq_ray.training.attempt import Attempt, StaleAttemptError, begun, remove_marks

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    found = {"--storage-path": tmp_path / "runs" / "run", "--checkpoint-path": tmp_path / "kept" / "run"}
    for folder in found.values():
        folder.mkdir(parents=True)
    return found


def names(folders: dict[str, Path]) -> list[list[str]]:
    return [sorted(path.name for path in folder.iterdir()) for folder in folders.values()]


def test_an_earlier_attempt_must_not_write(folders: dict[str, Path]) -> None:
    with begun(folders, pytest.fail) as first:
        frozen = Attempt(first, tuple(folders.values()))
        frozen.check()
        with begun(folders, pytest.fail) as second:
            with pytest.raises(StaleAttemptError, match=r"another start of this run writes to .*runs/run now"):
                frozen.check()
            Attempt(second, tuple(folders.values())).check()
            assert names(folders) == [[second], [second]]
    assert names(folders) == [[], []]
    with pytest.raises(ConnectionError):
        frozen.check()


@pytest.mark.parametrize("flag", ["--storage-path", "--checkpoint-path"])
def test_a_storage_that_is_away_is_not_made_again(flag: str, folders: dict[str, Path], tmp_path: Path) -> None:
    with begun(folders, pytest.fail) as mark:
        attempt, away = Attempt(mark, tuple(folders.values())), folders[flag].parent
        away.rename(tmp_path / "elsewhere")
        with pytest.raises(ConnectionError, match=f"the storage of {folders[flag]} cannot be reached any more"):
            attempt.check()
        away.joinpath("run").mkdir(parents=True)  # the disk below, with a folder of the same name
        with pytest.raises(ConnectionError, match="cannot be reached any more"):
            attempt.check()
        away.joinpath("run").rmdir()
        away.rmdir()
        (tmp_path / "elsewhere").rename(away)
        attempt.check()


def test_an_attempt_waits_for_its_storage_and_says_so(folders: dict[str, Path]) -> None:
    told: list[str] = []
    folder = folders["--storage-path"]
    folder.rmdir()

    def come_back(text: str) -> None:
        told.append(text)
        folder.mkdir()

    with begun(folders, come_back):
        pass
    assert told == [f"--storage-path: {folder} is missing: waiting for its storage"]
    folder.rmdir()
    with (
        pytest.raises(ValueError, match=rf"^cannot write to --storage-path {folder}: failed 6 times .*is missing"),
        begun(folders, told.append),
    ):
        pass
    assert not folder.exists()
    assert names({"": folders["--checkpoint-path"]}) == [[]]


def test_a_folder_that_cannot_be_written_to_is_one_line(folders: dict[str, Path]) -> None:
    folder = folders["--checkpoint-path"]
    folder.rmdir()
    folder.write_text("a file")
    with (
        pytest.raises(ValueError, match=r"^cannot write to --checkpoint-path .*kept/run: Not a directory$"),
        begun(folders, lambda _: None),
    ):
        pass


def test_what_a_killed_driver_left_is_removed(folders: dict[str, Path]) -> None:
    with begun(folders, pytest.fail) as mark:
        pass
    for folder in folders.values():
        (folder / mark).touch()
        (folder / "config.json").touch()
    remove_marks(folders.values())
    assert names(folders) == [["config.json"], ["config.json"]]
