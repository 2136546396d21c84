"""The name of a run, or of a sweep, is started once at a time."""

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from inq_ray.files.lock import HeldError, locked
from inq_ray.files.shown import shown

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP})


@contextlib.contextmanager
def name_held(
    folder: Path,
    lock: Path,
    kind: Literal["run", "sweep"],
    tell: Callable[[str], None],
    *,
    flag: str = "--storage-path",
) -> Iterator[None]:
    """Keeps a name from being started elsewhere during the block.

    Args:
        folder: of the run or sweep, or of its checkpoints; its name is the name, what is above it the storage.
        lock: the file that is locked; its folder is made.
        kind: for messages.
        tell: takes a line, where the storage knows no locks.
        flag: that named the storage.

    Raises:
        ValueError: the name is running, or the storage cannot be written to; one line with flag and what to do.
    """
    with contextlib.ExitStack() as stack:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(lock))
        except HeldError as error:
            what = f"this {kind}" if flag == "--storage-path" else f"a {kind} of this name with the same {flag}"
            raise ValueError(
                f"--name {folder.name}: {what} is running ({error.holder or 'who holds it is not known'}): "
                "wait for its end, or take another --name"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise ValueError(
                    f"{flag} {shown(folder.parent)}: cannot write there ({error.strerror or error}): take another"
                ) from error
            tell(f"{shown(folder.parent)} knows no locks: start no two {kind}s of one name at a time")
        yield
