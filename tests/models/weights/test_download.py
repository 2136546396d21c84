"""Downloads: once per node, checked, beside and renamed, and one line where they cannot be had."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from inq_ray.models.weights import download
from inq_ray.models.weights.download import cached, checkpoints_folder, once
from tests.models.file_server import FileServer, serving

CONTENT = b"weights" * 100_000
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder, in an empty place."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert checkpoints_folder() == tmp_path / "hub" / "checkpoints"
    return checkpoints_folder()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as server:
        server.files[f"/a/{NAME}"] = CONTENT
        yield server


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_what_was_downloaded_is_taken_again(server: FileServer, folder: Path) -> None:
    for _ in range(2):
        path = cached(f"{server.address}/a/{NAME}")
        assert path == folder / NAME
        assert path.read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert names(folder) == [NAME]


def test_where_torch_looks(server: FileServer, tmp_path: Path) -> None:
    path = tmp_path / "state.pth"
    torch.save({"a": torch.ones(2)}, path)
    url = path.as_uri()
    cached(url)
    path.unlink()
    assert torch.equal(torch.hub.load_state_dict_from_url(url, weights_only=True)["a"], torch.ones(2))


def test_a_few_letters_are_no_sum(server: FileServer, folder: Path) -> None:
    server.files["/net-ab.pth"] = CONTENT
    assert cached(f"{server.address}/net-ab.pth") == folder / "net-ab.pth"


def test_many_ask_and_one_downloads(server: FileServer, folder: Path) -> None:
    """Threads stand for processes: each opens the lock's file for itself, which is what flock tells apart."""
    server.delay_seconds = 0.3
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(cached, [f"{server.address}/a/{NAME}"] * 8))
    assert paths == {folder / NAME}
    assert len(server.asked) == 1


def test_a_file_with_another_sum_is_downloaded_anew(server: FileServer, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(CONTENT[:-1])
    assert cached(f"{server.address}/a/{NAME}").read_bytes() == CONTENT


@pytest.mark.parametrize("fault", ["other", "breaks off", "missing"])
def test_what_cannot_be_had_leaves_nothing_behind(server: FileServer, folder: Path, fault: str) -> None:
    if fault == "other":
        server.files[f"/a/{NAME}"] = CONTENT[1:]
    server.breaks_off = fault == "breaks off"
    url = f"{server.address}/{'b' if fault == 'missing' else 'a'}/{NAME}"
    with pytest.raises(ValueError, match=r"^weights: cannot download .*pass --weights FILE$") as error:
        cached(url)
    told = {"other": "invalid hash value", "breaks off": "invalid hash value", "missing": "Not Found"}[fault]
    assert told in str(error.value)
    assert url in str(error.value)
    assert "\n" not in str(error.value)
    assert names(folder) == []


def test_no_network(folder: Path) -> None:
    with serving() as gone:
        pass
    with pytest.raises(ValueError, match=r"Connection refused.*download it on a machine with internet access"):
        cached(f"{gone.address}/{NAME}")
    assert names(folder) == []


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"cannot write .*set TORCH_HOME to a folder"):
        cached("http://127.0.0.1:9/a.pth")


def test_waiting_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAIT_SECONDS", 0.2)
    path = tmp_path / "a"

    def make(partial: Path) -> None:
        with pytest.raises(TimeoutError, match=r"another process has been downloading .*a\.lock"):
            once(path, Path.touch)
        partial.write_text("whole")

    assert once(path, make).read_text() == "whole"


def test_what_fails_leaves_nothing_and_releases_the_lock(tmp_path: Path) -> None:
    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise KeyError("a")

    with pytest.raises(KeyError):
        once(tmp_path / "a", fail)
    assert names(tmp_path) == []
    assert once(tmp_path / "a", lambda partial: os.close(os.open(partial, os.O_CREAT))).is_file()
