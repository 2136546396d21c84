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
    """Another attempt has taken over, and this process must write nothing more."""


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
            raise ConnectionError(f"the storage of {shown(folder)} is not there any more")


@contextlib.contextmanager
def begun(folders: Mapping[str, Path], tell: Callable[[str], None]) -> Iterator[str]:
    """Put a file into each folder for the time of the block; those of earlier attempts are deleted.

    Args:
        folders: Folders by flag; each was there when the run began.
        tell: Takes a line if one is not there now, and is waited for.

    Yields:
        The name of the files, for :class:`Attempt`.

    Raises:
        ValueError: A folder cannot be written to, or is not there for as long as a storage is waited for.
    """
    mark = f"{_PREFIX}{secrets.token_hex(8)}"
    try:
        for flag, folder in folders.items():
            if not folder.is_dir():
                tell(f"{flag}: {shown(folder)} is not there now: waiting for its storage")
            retry(functools.partial(_begin, folder, mark), f"{flag} {shown(folder)}", verb="write to")
        yield mark
    finally:
        for folder in folders.values():
            with contextlib.suppress(OSError):  # it may have been deleted, or its disk be full
                (folder / mark).unlink(missing_ok=True)


def remove_marks(folders: Iterable[Path]) -> None:
    """Delete the files of attempts whose driver was killed; only if none is under way."""
    for folder in folders:
        with contextlib.suppress(OSError):
            for left in folder.glob(f"{_PREFIX}*"):
                left.unlink(missing_ok=True)


def _begin(folder: Path, mark: str) -> None:
    if not os.path.lexists(folder):
        raise ConnectionError("it is not there any more")
    (folder / mark).touch()
    for left in folder.glob(f"{_PREFIX}*"):
        if left.name != mark:
            left.unlink(missing_ok=True)


def _is_there(file: Path) -> bool:
    """Return whether a file is there now: opening it asks a server of files too, which looking for its name may not."""
    try:
        os.close(os.open(file, os.O_RDONLY))
    except OSError:
        return False
    return True
