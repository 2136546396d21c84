"""The name of a run, or of a sweep, is started once at a time."""

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from inq_ray.files.lock import HeldError, locked

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP})


@contextlib.contextmanager
def name_held(folder: Path, lock: Path, kind: Literal["run", "sweep"], tell: Callable[[str], None]) -> Iterator[None]:
    """Keeps a name from being started elsewhere during the block.

    Args:
        folder: of the run or sweep; its name is the name, what is above it the storage.
        lock: the file that is locked; its folder is made.
        kind: for messages.
        tell: takes a line, where the storage knows no locks.

    Raises:
        ValueError: the name is running, or the storage cannot be written to; one line with flag and what to do.
    """
    with contextlib.ExitStack() as stack:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(lock))
        except HeldError as error:
            raise ValueError(
                f"--name {folder.name}: this {kind} is running ({error.holder or 'who holds it is not known'}): "
                "wait for its end, or take another --name"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise ValueError(
                    f"--storage-path {folder.parent}: cannot write there ({error}): take another"
                ) from error
            tell(f"{folder.parent} knows no locks: start no two {kind}s of one name at a time")
        yield
