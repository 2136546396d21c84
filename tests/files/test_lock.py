"""A lock that is a file: one holder, who is known by name, and whose end is the lock's."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import pytest

from inq_ray.files.lock import HeldError, Holder, locked

pytestmark = pytest.mark.system

# A process that holds a lock, says so, and then waits, as long as this test holds its input.
HOLD = """
import sys
from pathlib import Path
from inq_ray.files.lock import locked

with locked(Path(sys.argv[1])):
    {before}
    print("held", flush=True)
    sys.stdin.read()
"""


class Process:
    """Holds a lock until it is ended."""

    def __init__(self, path: Path, before: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLD.format(before=before), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "held\n"
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(30)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.lock"


def test_who_holds_it_is_told_at_once(path: Path) -> None:
    began = time.time()
    with Process(path) as process, pytest.raises(HeldError) as error, locked(path):
        pytest.fail("two hold it")
    holder = error.value.holder
    assert holder is not None
    assert (holder.host, holder.pid) == (os.uname().nodename, process.pid)
    assert began <= holder.since <= time.time()
    assert f"{path} is held by process {process.pid} on {holder.host}, since 20" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_killed_process_holds_nothing(path: Path) -> None:
    with Process(path):
        pass
    assert b"pid" in path.read_bytes()  # what it said is left, and decides nothing
    with locked(path):
        pass
    assert path.read_bytes() == b""


def test_what_it_forked_does_not_hold_it_on(path: Path, tmp_path: Path) -> None:
    fork = "import os, time\n    child = os.fork()\n    if child == 0:\n        time.sleep(60)"
    with Process(path, f"{fork}\n    Path({str(tmp_path / 'child')!r}).write_text(str(child))"):
        with pytest.raises(HeldError), locked(path):
            pytest.fail("two hold it")
        child = int((tmp_path / "child").read_text())
    try:
        with locked(path, wait_seconds=30):  # a child that has not begun to run yet holds it still
            os.kill(child, 0)  # it is still there
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_leaves_the_block_and_its_parent_still_holds(path: Path) -> None:
    leave = "import os\n    child = os.fork()\n    if child == 0:\n        raise SystemExit\n    os.waitpid(child, 0)"
    with Process(path, leave) as process, pytest.raises(HeldError, match=f"process {process.pid} on"), locked(path):
        pytest.fail("two hold it")


def test_waiting_ends_when_it_is_free(path: Path) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(path):
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    with pytest.raises(HeldError, match=f"process {os.getpid()} on"), locked(path, wait_seconds=0.15):
        pytest.fail("two threads hold it")
    timer = threading.Timer(0.2, done.set)
    timer.start()
    with locked(path, wait_seconds=30):
        assert done.is_set()
    thread.join()


def test_what_fails_lets_go(path: Path) -> None:
    with pytest.raises(KeyError), locked(path):
        raise KeyError("a")
    with locked(path):
        pass


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"host": "h"}', '{"host": "h", "pid": 1, "since": 1e300}', "[" * 4096]
)
def test_a_holder_that_does_not_say_who_it_is(path: Path, text: str) -> None:
    with locked(path):
        path.write_text(text)
        with pytest.raises(HeldError, match="is held by another process") as error, locked(path):
            pytest.fail("two hold it")
    assert error.value.holder is None


def test_a_full_disk_keeps_nobody_from_holding_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with locked(path), pytest.raises(HeldError), locked(path):
        pytest.fail("two hold it")


def test_where_no_file_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none" / "a.lock"):
        pytest.fail("there is no folder")


def test_the_error_crosses_processes() -> None:
    error = HeldError(Path("a"), Holder("node-1", 7, 0.0))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301, our own
    assert str(again) == str(error) == "a is held by process 7 on node-1, since 1970-01-01 00:00:00 UTC"
    assert (again.path, again.holder) == (error.path, error.holder)
