"""Lock on a run's or sweep's name, so that it is not started twice at a time."""

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
    """Keep others from starting the same name during the block.

    Args:
        folder: Folder of the run, sweep or its checkpoints; its last part is the name, its parent the storage.
        lock: File to lock; its folder is created.
        kind: What is started, for messages.
        tell: Called with a line if the storage has no locks.
        flag: Flag that names the storage, for messages.

    Raises:
        ValueError: The name is in use, or the storage is not writable; one line that names the flag and the remedy.
    """
    with contextlib.ExitStack() as stack:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(lock))
        except HeldError as error:
            what = f"this {kind}" if flag == "--storage-path" else f"a {kind} of this name with the same {flag}"
            raise ValueError(
                f"--name {folder.name}: {what} is running ({error.holder or 'holder unknown'}): "
                "wait until it ends, or use another --name"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise ValueError(
                    f"{flag} {shown(folder.parent)}: cannot write there ({error.strerror or error}): use another folder"
                ) from error
            tell(f"{shown(folder.parent)} has no file locks: do not start two {kind}s of the same name at a time")
        yield
