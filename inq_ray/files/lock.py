"""File locks: one process at a time, on a local disk or on a folder shared by several machines (NFS).

The kernel holds the lock (flock) and releases it when its process ends, however it ends. The file's content only names
the holder; it decides nothing and may be stale after a process was killed.
"""

# Not filelock, as torch uses: in 3.20 a process that finds the lock held truncates the holder's name, and forks keep
# it.

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
# Time between taking a lock and writing the holder's name: how long to wait for a holder's name to appear.
_NAMING_SECONDS = 0.5
_MOST_BYTES = 4096
_HELD: set[FileIO] = set()


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        host: Name of its machine.
        pid: Process id on that machine.
        since: Seconds since 1970, UTC, by that machine's clock.
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
        path: Path of the lock file.
        holder: The process that holds it; None if it is unknown.
    """

    def __init__(self, path: Path, holder: Holder | None) -> None:
        super().__init__(path, holder)
        self.path = path
        self.holder = holder

    def __str__(self) -> str:
        return f"{self.path} is held by {self.holder or 'another process'}"


@contextmanager
def locked(path: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold a file's lock during the block. The file is created if it is missing and is not removed.

    Other threads of this process wait as well, and a process forked in the block does not hold the lock.

    Args:
        path: Path of the file, in an existing folder.
        wait_seconds: How long to wait while another process holds it; 0 = do not wait.

    Raises:
        HeldError: Another process held it all that time; names the process.
        OSError: The file cannot be created, or its file system has no locks (ENOLCK, ENOSYS, ENOTSUP).
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
            if file in _HELD:  # false in a process that was forked in the block
                _HELD.remove(file)
                _write(file, b"")


def _take(file: FileIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(file: FileIO, text: bytes) -> None:
    """Write the holder's name. If the disk is full the name is missing, and the lock holds anyway."""
    with suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), text)


def _holder(file: FileIO) -> Holder | None:
    """Return the process that holds the lock, as the file names it."""
    deadline = time.monotonic() + _NAMING_SECONDS
    while True:
        with suppress(OSError, ValueError, TypeError, OverflowError, RecursionError):
            holder = Holder(**json.loads(os.pread(file.fileno(), _MOST_BYTES, 0)))
            str(holder)  # raises if `since` is not a time
            return holder
        if time.monotonic() >= deadline:
            return None
        time.sleep(_POLL_SECONDS)


def _let_go_in_child() -> None:
    """Close the lock in a forked child, so that it belongs to the parent alone and ends with it."""
    for file in _HELD:
        file.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
