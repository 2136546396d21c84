"""Folders that are whole or not there."""

import errno
from pathlib import Path

import pytest

from inq_ray.files import folder as module
from inq_ray.files.folder import delete_folder, leftovers, try_writing, write_folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_folder_is_written_replaced_and_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "a"
    for data in (b"first", b"second"):
        write_folder(folder, {"x": data, "y": b""})
        assert contents(tmp_path) == {"deep/a/x": data, "deep/a/y": b""}
    delete_folder(folder)
    delete_folder(folder)
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("at", ["_write_file", "sync"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    write_folder(tmp_path / "a", {"x": b"first"})
    monkeypatch.setattr(module, at, full)
    with pytest.raises(OSError, match="No space left"):
        write_folder(tmp_path / "a", {"x": b"second"})
    assert contents(tmp_path) == {"a/x": b"first"}
    assert leftovers(tmp_path) == []


def test_what_a_killed_process_leaves_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "a.b"):
        write_folder(tmp_path / name, {"x": b""})
    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_file", killed)
        with pytest.raises(KeyboardInterrupt):
            write_folder(tmp_path / "a.b", {"x": b""})
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            delete_folder(tmp_path / "a")
    (deleted,), (partial,) = leftovers(tmp_path, "a"), leftovers(tmp_path, "a.b")
    assert (deleted.suffix, partial.suffix) == (".deleted", ".partial")
    assert leftovers(tmp_path) == sorted([deleted, partial])
    assert not (tmp_path / "a").exists()
    delete_folder(tmp_path / "a")  # what was left of it is deleted too
    assert leftovers(tmp_path) == [partial]
    assert leftovers(tmp_path / "none") == []


@pytest.mark.parametrize("name", ["", "a", "a/b/c"])
def test_trying_to_write_leaves_nothing(tmp_path: Path, name: str) -> None:
    try_writing(tmp_path / name)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x" * 256, "a/" + "x" * 256])
def test_a_folder_that_cannot_be_made_is_found_by_trying(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="too long"):
        try_writing(tmp_path / name)
    assert not any(tmp_path.iterdir())
