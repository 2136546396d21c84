"""Files shared by all processes of a node: made once under a lock, then mapped read-only, so memory holds one copy.

The files are in a folder that only their user can write to, and contain raw numbers, so reading them cannot run code.
"""

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from inq_ray.files import lock
from inq_ray.files.whole import whole

VARIABLE = "INQ_RAY_CACHE"
WAIT_SECONDS = 600.0


def cache_folder() -> Path:
    """Return this user's cache folder, created if missing, in $INQ_RAY_CACHE or the system's temporary folder.

    Raises:
        ValueError: It cannot be created, or is not a folder that belongs to this user and is closed to others: someone
            else could put other data there.
    """
    base = Path(os.path.expanduser(os.environ.get(VARIABLE) or tempfile.gettempdir())).absolute()
    folder = base / f"inq_ray-{os.getuid()}"
    try:
        base.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
    except OSError as error:
        raise ValueError(
            f"cannot use {folder} for decoded images: {error.strerror}; set {VARIABLE} to another folder"
        ) from error
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise ValueError(
            f"will not use {folder} for decoded images: it is not a folder that only user {os.getuid()} can write to; "
            f"remove it, or set {VARIABLE} to another folder"
        )
    return folder


def shared_file(
    key: str, num_bytes: int, write: Callable[[BinaryIO], None], *, wait_seconds: float = WAIT_SECONDS
) -> Path:
    """Return the path of a file of the node. The first process that needs it writes it; others wait.

    Args:
        key: Name of the contents: other contents need another key.
        num_bytes: Size of the file; a file of another size is written again.
        write: Called with the open file, in at most one process of the node at a time; its exceptions are passed on.
        wait_seconds: How long to wait for another process that is writing.

    Returns:
        A complete file, for reading only.

    Raises:
        ValueError: There is no usable folder, or not enough space.
        TimeoutError: Another process has been writing for longer than `wait_seconds`.
    """
    folder = cache_folder()
    path = folder / f"{key}.raw"
    if not _is_complete(path, num_bytes):
        with locked(folder / f"{key}.lock", wait_seconds, "decoding images"):
            if not _is_complete(path, num_bytes):
                _make(path, num_bytes, write)
    return path


def _is_complete(path: Path, num_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == num_bytes


def _make(path: Path, num_bytes: int, write: Callable[[BinaryIO], None]) -> None:
    """Write under a temporary name and rename: a file of this name is always complete, even after a power loss."""
    try:
        with whole(path, temporary=path.with_suffix(".partial")) as partial, partial.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)  # fails now, not at the end, if there is no space
            write(file)
            assert file.tell() == num_bytes, (file.tell(), num_bytes)
            os.fchmod(file.fileno(), 0o400)
    except OSError as error:
        raise ValueError(
            f"cannot write {num_bytes / 2**20:.0f} MiB of decoded images to {path.parent}: {error.strerror}; "
            f"set {VARIABLE} to a folder with enough space"
        ) from error


@contextmanager
def locked(path: Path, wait_seconds: float, doing: str) -> Iterator[None]:
    """Hold a lock of the node; see :func:`inq_ray.files.lock.locked`.

    Args:
        path: Path of the file, created if missing.
        wait_seconds: How long to wait for another process that holds it.
        doing: What it is held for, for the message.

    Raises:
        TimeoutError: Another process holds it for longer.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(lock.locked(path, wait_seconds=wait_seconds))
        except lock.HeldError as error:
            raise TimeoutError(
                f"another process has been {doing} for more than {wait_seconds:.0f} s ({error}): "
                f"end it if it hangs, or set {VARIABLE} to another folder"
            ) from None
        yield
