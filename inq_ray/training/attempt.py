"""Attempt: one start of a run's workers; workers of earlier attempts, or without their storage, must not write.

During an attempt the driver keeps a file in each folder that the workers write to. Its name is different each time, and
the next attempt deletes the files of all earlier ones. So a worker that was suspended or disconnected, and returns
after others have replaced it, finds its file deleted; and a worker whose storage is unmounted finds no file at all,
instead of creating the folder again on the disk below.
"""

import contextlib
import functools
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from inq_ray.files.shown import shown
from inq_ray.storage.retry import retry

_PREFIX = ".seen-by-all-"


class StaleAttemptError(RuntimeError):
    """Another attempt has begun, and this process must not write any more."""


@dataclass(frozen=True)
class Attempt:
    """An attempt, as its workers know it.

    Attributes:
        mark: Name of its files.
        folders: Folders that it writes to.
    """

    mark: str
    folders: tuple[Path, ...]

    def check(self) -> None:
        """Check that this attempt may write; called before each change of a folder.

        Raises:
            StaleAttemptError: Another attempt has begun.
            ConnectionError: The storage cannot be reached.
        """
        for folder in self.folders:
            if _is_there(folder / self.mark):
                continue
            if next(folder.glob(f"{_PREFIX}*"), None) is not None:
                raise StaleAttemptError(f"another start of this run writes to {shown(folder)} now: this one has ended")
            raise ConnectionError(f"the storage of {shown(folder)} cannot be reached any more")


@contextlib.contextmanager
def begun(folders: Mapping[str, Path], tell: Callable[[str], None]) -> Iterator[str]:
    """Put a file into each folder during the block; those of earlier attempts are deleted.

    Args:
        folders: Folders by flag; each existed when the run began.
        tell: Called with a line if a folder is missing, and is waited for.

    Yields:
        The name of the files, for :class:`Attempt`.

    Raises:
        ValueError: A folder is not writable, or stays missing for as long as storages are waited for.
    """
    mark = f"{_PREFIX}{secrets.token_hex(8)}"
    try:
        for flag, folder in folders.items():
            if not folder.is_dir():
                tell(f"{flag}: {shown(folder)} is missing: waiting for its storage")
            retry(functools.partial(_begin, folder, mark), f"{flag} {shown(folder)}", verb="write to")
        yield mark
    finally:
        for folder in folders.values():
            with contextlib.suppress(OSError):  # it may have been deleted, or its disk may be full
                (folder / mark).unlink(missing_ok=True)


def remove_marks(folders: Iterable[Path]) -> None:
    """Delete the files of attempts whose driver was killed; only while no attempt is running."""
    for folder in folders:
        with contextlib.suppress(OSError):
            for left in folder.glob(f"{_PREFIX}*"):
                left.unlink(missing_ok=True)


def _begin(folder: Path, mark: str) -> None:
    if not os.path.lexists(folder):
        raise ConnectionError("the folder is missing")
    (folder / mark).touch()
    for left in folder.glob(f"{_PREFIX}*"):
        if left.name != mark:
            left.unlink(missing_ok=True)


def _is_there(file: Path) -> bool:
    """Return whether a file exists now; it is opened, because a check of the name may be answered from a cache."""
    try:
        os.close(os.open(file, os.O_RDONLY))
    except OSError:
        return False
    return True
