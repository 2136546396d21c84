"""Files that every process of a node needs and one of them makes: torch.hub's folder of downloaded weights."""

import hashlib
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlparse

import torch.hub

from inq_ray.files.lock import HeldError, locked
from inq_ray.files.whole import whole

WAIT_SECONDS = 3600.0
# As torch.hub.HASH_REGEX, but for names in which a few letters after a hyphen mean something else.
_SUM = re.compile(r"-([a-f0-9]{8,})\.")


def checkpoints_folder() -> Path:
    """Return the folder of torch.hub ($TORCH_HOME/hub/checkpoints) that torchvision downloads to as well."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def cached(url: str) -> Path:
    """Return a file from the network, downloaded by the first process of the node that asks for it while others wait.

    The name of torch's files ends in the first digits of their SHA-256: a download, or a file that is there already,
    with another sum is not taken.

    Raises:
        ValueError: It cannot be downloaded or written, or is not what its name says; one line with a way out.
        TimeoutError: Another process has been downloading for longer than `WAIT_SECONDS`.
    """
    path = checkpoints_folder() / Path(urlparse(url).path).name
    found = _SUM.search(path.name)
    digits = found.group(1) if found else ""

    def make(partial: Path) -> None:
        try:
            torch.hub.download_url_to_file(url, str(partial), digits or None, progress=False)
        except Exception as error:  # of urllib, http.client, the system, or torch's RuntimeError for a wrong sum
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise ValueError(
                f"weights: cannot download {url} to {path.parent}: {str(reason).splitlines()[0]}; download it where "
                "there is a network, and pass --weights FILE"
            ) from error

    return once(path, make, lambda: _has_sum(path, digits))


def once(path: Path, make: Callable[[Path], None], is_right: Callable[[], bool] = lambda: True) -> Path:
    """Return `path`, written by one process of the node at most, beside and renamed.

    Args:
        path: The file. One that is there and right is taken as it is.
        make: Writes the file that it is given; what it raises is passed on.
        is_right: Whether a file that is there can be taken.

    Raises:
        ValueError: The folder cannot be written to.
        TimeoutError: Another process has been at it for longer than `WAIT_SECONDS`.
    """
    if path.is_file() and is_right():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(locked(path.with_name(f"{path.name}.lock"), wait_seconds=WAIT_SECONDS))
            if not (path.is_file() and is_right()):
                make(stack.enter_context(whole(path, beside=path.with_name(f"{path.name}.partial"))))
    except HeldError as error:
        raise TimeoutError(
            f"another process has been downloading weights for more than {WAIT_SECONDS:.0f} s ({error}): "
            "end it if it hangs, or pass --weights FILE"
        ) from None
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
        raise ValueError(
            f"weights: cannot write {path.name} to {path.parent}: {error.strerror}; set TORCH_HOME to a folder "
            "with room"
        ) from error
    return path


def _has_sum(path: Path, digits: str) -> bool:
    """Whether the SHA-256 of a file begins with these hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(digits)
