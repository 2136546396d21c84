"""Files that are whole or not there, whatever is killed and whenever the power goes."""

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_COUNT = itertools.count()
_PARTIAL = ".partial"
# Names beside, of this process: they are in use.
_WRITING: set[str] = set()
# Of file systems whose folders cannot be synced, some FUSE and SMB ones: there is nothing more to ask of them.
_NO_SUCH_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})


@contextmanager
def whole(path: Path, *, beside: Path | None = None) -> Iterator[Path]:
    """Give a path beside; what is written there becomes `path` at the end of the block, once it has reached the disk.

    Where anything raises, `path` stays as it was, and nothing stays beside. What a killed process of this machine left
    beside is removed by the next that writes the file.

    Args:
        path: The file; its folder is there. One that is there is replaced.
        beside: Where it is written, in the same folder; by default under a hidden name that no other writer uses.
            Whoever holds a lock gives one of its own, so that what a killed process left is written over.

    Raises:
        OSError: It cannot be written.
    """
    if beside is None:
        _remove_leftovers(path)
        beside = path.with_name(f".{path.name}.{unique()}{_PARTIAL}")
    _WRITING.add(beside.name)
    try:
        yield beside
        sync(beside)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):  # as there may be no folder, or one that cannot be written to any more
            beside.unlink()
        raise
    finally:
        _WRITING.discard(beside.name)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        OSError: It cannot be written; the file stays as it was.
    """
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def append_text(path: Path, lines: str) -> None:
    """Add whole lines to a text file, all or none; where its last line was cut short by a kill, that one is ended.

    One process at a time adds to a file.

    Raises:
        OSError: They cannot be written; the file stays as it was.
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
    """Remove what writers have left half written in a folder, of whatever machine they were.

    Only for a folder in which nobody writes. Where something cannot be removed, it stays.
    """
    with suppress(OSError):
        for path in folder.glob(f".*{_PARTIAL}"):
            if path.is_file():
                path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file's contents, or the names in a folder, reach the disk.

    Raises:
        OSError: They do not.
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
    """Return a part of a name that no other process of any machine uses, and this one only once."""
    return f"{os.uname().nodename}-{os.getpid()}-{next(_COUNT)}"


def _remove_leftovers(path: Path) -> None:
    """Remove what processes that are gone have left beside a file; where that cannot be, it stays."""
    start = f".{path.name}."
    with suppress(OSError):  # as there may be no folder
        for name in os.listdir(path.parent):
            if name.startswith(start) and name.endswith(_PARTIAL) and name not in _WRITING:
                writer = name[len(start) : -len(_PARTIAL)]
                if _is_gone(writer):
                    path.with_name(name).unlink(missing_ok=True)


def _is_gone(writer: str) -> bool:
    """Return whether a process of this machine that called itself so by :func:`unique` has ended."""
    host, _, numbers = writer.partition(f"{os.uname().nodename}-")
    pid, _, count = numbers.partition("-")
    if host or not (pid.isdecimal() and count.isdecimal()):
        return False
    if int(pid) == os.getpid():  # a restarted container has the same ids again; what this process writes is known
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False
