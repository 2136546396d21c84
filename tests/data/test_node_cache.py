"""One file for all processes of a node: made once, whole or not at all, in a folder nobody else can write to."""

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from inq_ray.data import node_cache
from inq_ray.data.node_cache import VARIABLE, cache_folder, shared_file


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "new" / "cache"))
    return tmp_path / "new" / "cache"


def write_abc(file: BinaryIO) -> None:
    file.write(b"abc")


def never(file: BinaryIO) -> None:
    raise AssertionError("must not be written again")


# A process that asks for the file and says so where it writes it; the module alone, without torch, starts at once.
ASK = """
import runpy, sys, time

def write(file):
    print("written")
    time.sleep(0.5)
    file.write(b"abc")

assert runpy.run_path(sys.argv[1])["shared_file"]("key", 3, write).read_bytes() == b"abc"
"""


def test_made_once_read_only_and_private(cache: Path) -> None:
    path = shared_file("key", 3, write_abc)
    assert path.read_bytes() == b"abc"
    assert shared_file("key", 3, never) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert path.parent.parent == cache
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not list(path.parent.glob("*.partial"))


def test_a_file_of_another_size_is_made_anew() -> None:
    path = shared_file("key", 3, write_abc)
    path.chmod(0o600)
    path.write_bytes(b"a")
    assert shared_file("key", 3, write_abc).read_bytes() == b"abc"


def test_processes_make_it_once() -> None:
    command = [sys.executable, "-c", ASK, node_cache.__file__]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(said) == ["", "", "written\n"]


def test_failing_leaves_nothing_and_can_be_tried_again() -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"ab")
        raise ValueError("row 7 is broken")

    with pytest.raises(ValueError, match="row 7 is broken"):
        shared_file("key", 3, fail)
    assert [path.suffix for path in cache_folder().iterdir()] == [".lock"]
    assert shared_file("key", 3, write_abc).read_bytes() == b"abc"


def test_what_a_killed_process_left_is_written_over() -> None:
    (cache_folder() / "key.partial").write_bytes(b"left behind, longer than what comes")
    assert shared_file("key", 3, write_abc).read_bytes() == b"abc"


def test_waiting_ends_with_a_clear_error() -> None:
    with (cache_folder() / "key.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match=rf"another process has been decoding .*key.lock.*{VARIABLE}"):
            shared_file("key", 3, never, wait_seconds=0.1)


def test_no_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ValueError, match=rf"cannot write 5 MiB .*No space left on device; set {VARIABLE}"):
        shared_file("key", 5 * 2**20, never)


def test_folders_open_to_others_are_refused(cache: Path) -> None:
    cache_folder().chmod(0o777)
    with pytest.raises(ValueError, match=r"will not use .* only user"):
        cache_folder()


def test_links_and_files_in_place_of_the_folder_are_refused(cache: Path, tmp_path: Path) -> None:
    cache.mkdir(parents=True)
    folder = cache / f"inq_ray-{os.getuid()}"
    folder.symlink_to(tmp_path)
    with pytest.raises(ValueError, match="will not use"):
        cache_folder()
    folder.unlink()
    folder.write_bytes(b"")
    with pytest.raises(ValueError, match=f"cannot use .*{VARIABLE}"):
        cache_folder()


def test_folders_of_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache_folder()
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    folder.rename(folder.with_name(f"inq_ray-{uid + 1}"))
    with pytest.raises(ValueError, match="will not use"):
        cache_folder()
