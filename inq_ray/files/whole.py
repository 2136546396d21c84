"""Files that are either complete or missing, even if a process is killed or the power fails."""

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_COUNT = itertools.count()
_PARTIAL = ".partial"
# Temporary files of this process that are in use.
_WRITING: set[str] = set()
# Errors of file systems whose folders cannot be synced, some FUSE and SMB ones.
_NO_SUCH_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})


@contextmanager
def whole(path: Path, *, temporary: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path; what is written there becomes `path` at the end of the block, synced to disk.

    If the block raises, `path` stays as it was and the temporary file is removed. A temporary file left by a killed
    process of this machine is removed by the next process that writes the file.

    Args:
        path: The file, in an existing folder; replaced if it exists.
        temporary: Where to write, in the same folder; by default a hidden name that no other writer uses. A caller that
            holds a lock passes a fixed name, so that the file left by a killed process is overwritten.

    Raises:
        OSError: The file cannot be written.
    """
    if temporary is None:
        _remove_leftovers(path)
        temporary = path.with_name(f".{path.name}.{unique()}{_PARTIAL}")
    _WRITING.add(temporary.name)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the folder may be missing, or no longer writable
            temporary.unlink()
        raise
    finally:
        _WRITING.discard(temporary.name)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        OSError: The text cannot be written; the file stays as it was.
    """
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_text(path: Path, lines: str) -> None:
    """Append whole lines to a text file, all or none. A last line that a kill cut short is ended first.

    Only one process at a time may append to a file.

    Raises:
        OSError: The lines cannot be written; the file stays as it was.
    """
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        is_cut = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        left = memoryview(("\n" * is_cut + lines).encode())
        try:
            while left:
                left = left[os.write(file.fileno(), left) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(file.fileno(), size)
            raise


def remove_partial(folder: Path) -> None:
    """Remove temporary files of writers on any machine from a folder, if possible.

    Only for folders that no process is writing to.
    """
    with suppress(OSError):
        for path in folder.glob(f".*{_PARTIAL}"):
            if path.is_file():
                path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file's contents, or a folder's list of names, to the disk.

    Raises:
        OSError: Flushing failed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_SYNC or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


def unique() -> str:
    """Return a part of a file name that is unique across processes and machines."""
    return f"{os.uname().nodename}-{os.getpid()}-{next(_COUNT)}"


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` left by processes that have ended, if possible."""
    start = f".{path.name}."
    with suppress(OSError):  # the folder may be missing
        for name in os.listdir(path.parent):
            if name.startswith(start) and name.endswith(_PARTIAL) and name not in _WRITING:
                writer = name[len(start) : -len(_PARTIAL)]
                if _is_gone(writer):
                    path.with_name(name).unlink(missing_ok=True)


def _is_gone(writer: str) -> bool:
    """Return whether the process of this machine that made this name with :func:`unique` has ended."""
    host, _, numbers = writer.partition(f"{os.uname().nodename}-")
    pid, _, count = numbers.partition("-")
    if host or not (pid.isdecimal() and count.isdecimal()):
        return False
    if int(pid) == os.getpid():  # a restarted container reuses process ids; names of this process are known
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False
