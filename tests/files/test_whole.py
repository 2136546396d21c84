"""Files that are whole or not there."""

import errno
import os
import signal
from pathlib import Path

import pytest

from inq_ray.files import whole as module
from inq_ray.files.whole import append_text, sync, unique, whole, write_text


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_what_is_written_beside_takes_the_name_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("first")
    with whole(path) as beside:
        beside.write_text("second")
        assert path.read_text() == "first"
        assert beside.parent == tmp_path
    assert path.read_text() == "second"
    assert names(tmp_path) == ["a"]


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fails", [(Path, "write_text"), (os, "fsync"), (Path, "replace")])
def test_whatever_fails_the_old_file_stands_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: tuple[object, str]
) -> None:
    write_text(tmp_path / "summary.json", "first")
    with monkeypatch.context() as patch:
        patch.setattr(*fails, full)
        with pytest.raises(OSError, match="No space left"):
            write_text(tmp_path / "summary.json", "second")
    assert (tmp_path / "summary.json").read_text() == "first"
    assert names(tmp_path) == ["summary.json"]


def test_contents_reach_the_disk_before_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def note(path: Path) -> None:
        seen.append((path, names(tmp_path)))

    monkeypatch.setattr(module, "sync", note)
    with whole(tmp_path / "a", temporary=tmp_path / "b") as beside:
        beside.write_text("")
    assert seen == [(tmp_path / "b", ["b"]), (tmp_path, ["a"])]


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with whole(tmp_path / "a") as beside:
            beside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == []


def test_where_there_is_no_folder_the_first_error_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "none" / "a", "")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        write_text(tmp_path / "file" / "a", "")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EIO])
def test_only_folders_may_be_of_a_kind_that_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "a").write_text("")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        sync(tmp_path / "a")
    if number == errno.EIO:
        with pytest.raises(OSError, match=os.strerror(number)):
            sync(tmp_path)
    else:
        sync(tmp_path)


def test_lines_are_added_after_one_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "a"
    append_text(path, "1\n")
    append_text(path, "é\n3\n")
    path.write_bytes(path.read_bytes() + b"4 of whi")
    append_text(path, "5\n")
    assert path.read_text() == "1\né\n3\n4 of whi\n5\n"


@pytest.mark.parametrize("room", [0, 1, 5])
def test_all_lines_are_added_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    path, write = tmp_path / "a", os.write
    append_text(path, "first\n")
    left = [room]

    def until_full(descriptor: int, data: bytes) -> int:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        num, left[0] = write(descriptor, data[: left[0]]), 0
        return num

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", until_full)
        with pytest.raises(OSError, match="No space left"):
            append_text(path, "second\n")
    assert path.read_text() == "first\n"


def test_names_are_never_the_same_twice() -> None:
    assert len({unique() for _ in range(100)}) == 100
    assert str(os.getpid()) in unique()


def test_what_killed_processes_left_is_removed_by_the_next_writer(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with whole(tmp_path / "a") as beside:
            beside.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = names(tmp_path)
    host, own = os.uname().nodename, os.getpid()
    others = [
        f".a.elsewhere-{child}-0.partial",  # whether that lives nobody knows
        f".a.{host}-{os.getppid()}-0.partial",
        f".a.{host}-{10**40}-0.partial",
        f".a.{host}-x-0.partial",
        f".b.{host}-{child}-0.partial",
        "a.partial",
    ]
    for name in (*others, f".a.{host}-{own}-99999.partial"):
        (tmp_path / name).write_text("")
    with whole(tmp_path / "a") as first, whole(tmp_path / "a") as second:
        first.write_text("first")
        second.write_text("second")
        assert left not in names(tmp_path)
    assert names(tmp_path) == sorted(["a", *others])
    assert (tmp_path / "a").read_text() == "first"
