"""One file for all processes of a node: made once under a lock, then mapped read-only, so that memory holds it once.

Files lie in a folder that only their user can write to, and are raw numbers: nothing that is read here can run code.
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
    """Return this user's folder, made if there is none, in $INQ_RAY_CACHE or else in the system's temporary folder.

    Raises:
        ValueError: It cannot be made, or is not a folder that belongs to this user and is closed to others: somebody
            else could put other data there.
    """
    base = Path(os.environ.get(VARIABLE) or tempfile.gettempdir()).expanduser().absolute()
    folder = base / f"inq_ray-{os.getuid()}"
    try:
        base.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
    except OSError as error:
        raise ValueError(
            f"cannot use {folder} for decoded images: {error.strerror}; set {VARIABLE} to a folder"
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
    """Return the path of a file of the node, written by the first process that asks for it while others wait.

    Args:
        key: Names the contents: other contents, another key.
        num_bytes: Size of the file; one of another size is made again.
        write: Called with the open file, in at most one process of the node at a time; what it raises is passed on.
        wait_seconds: How long to wait for another process that is writing.

    Returns:
        A complete file, to be read only.

    Raises:
        ValueError: No usable folder, or no room in it.
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
    """Write beside and rename, so that a file of this name is always whole, even after a loss of power."""
    try:
        with whole(path, temporary=path.with_suffix(".partial")) as partial, partial.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)  # says now that there is no room, not at the end
            write(file)
            assert file.tell() == num_bytes, (file.tell(), num_bytes)
            os.fchmod(file.fileno(), 0o400)
    except OSError as error:
        raise ValueError(
            f"cannot write {num_bytes / 2**20:.0f} MiB of decoded images to {path.parent}: {error.strerror}; "
            f"set {VARIABLE} to a folder with room"
        ) from error


@contextmanager
def locked(path: Path, wait_seconds: float, doing: str) -> Iterator[None]:
    """Hold a lock of the node; see :func:`inq_ray.files.lock.locked`.

    Args:
        path: Of the file, which is made if there is none.
        wait_seconds: How long to wait for another process that holds it.
        doing: What it is held for, for the message.

    Raises:
        TimeoutError: Another process has held it for longer.
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
