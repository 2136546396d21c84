"""A lock that is a file: one process at a time, on a disk of this machine or a folder that many share (NFS).

The kernel holds it (flock) and lets go when its process ends, however it ends. What stands in the file only tells who
holds it: it decides nothing, and may be left from a process that was killed.
"""

# Not filelock, torch takes any: in 3.20 whoever finds it held truncates the holder's name, and forks hold it on.

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

_POLL_SECONDS = 0.05
# Between taking a lock and saying so; how long to wait for a holder to say who it is.
_NAMING_SECONDS = 0.5
_MOST_BYTES = 4096
_HELD: set[FileIO] = set()


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        host: Name of its machine.
        pid: Of the process, there.
        since: Seconds since 1970, UTC, by its machine's clock.
    """

    host: str
    pid: int
    since: float

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC)
        return f"process {self.pid} on {self.host}, since {since:%Y-%m-%d %H:%M:%S} UTC"


class HeldError(RuntimeError):
    """A lock is held by another process.

    Attributes:
        path: Of the lock.
        holder: Who holds it; None where that cannot be read.
    """

    def __init__(self, path: Path, holder: Holder | None) -> None:
        super().__init__(path, holder)
        self.path = path
        self.holder = holder

    def __str__(self) -> str:
        return f"{self.path} is held by {self.holder or 'another process'}"


@contextmanager
def locked(path: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold a file's lock during the block; the file is made if there is none, and stays.

    Another thread of this process has to wait as well, and a process forked in the block does not hold it.

    Args:
        path: Of the file, in a folder that is there.
        wait_seconds: How long to wait while another holds it; 0 = not at all.

    Raises:
        HeldError: Another has held it for all that time; says who.
        OSError: The file cannot be made, or its file system knows no locks (ENOLCK, ENOSYS, ENOTSUP).
    """
    deadline = time.monotonic() + wait_seconds
    with path.open("a+b", buffering=0) as file:
        while not _take(file):
            left = deadline - time.monotonic()
            if left <= 0:
                raise HeldError(path, _holder(file))
            time.sleep(min(_POLL_SECONDS, left))
        _HELD.add(file)
        try:
            _write(file, json.dumps(asdict(Holder(os.uname().nodename, os.getpid(), time.time()))).encode())
            yield
        finally:
            if file in _HELD:  # not so in a process that was forked in the block
                _HELD.remove(file)
                _write(file, b"")


def _take(file: FileIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(file: FileIO, text: bytes) -> None:
    """Say who holds it. On a full disk nobody is told, and the lock holds nevertheless."""
    with suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), text)


def _holder(file: FileIO) -> Holder | None:
    """Who holds it, by what stands in the file."""
    deadline = time.monotonic() + _NAMING_SECONDS
    while True:
        with suppress(OSError, ValueError, TypeError, OverflowError, RecursionError):
            holder = Holder(**json.loads(os.pread(file.fileno(), _MOST_BYTES, 0)))
            str(holder)  # refuses what is no time
            return holder
        if time.monotonic() >= deadline:
            return None
        time.sleep(_POLL_SECONDS)


def _let_go_in_child() -> None:
    """A fork shares its parent's lock: closed there, it is the parent's alone and ends with it."""
    for file in _HELD:
        file.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
