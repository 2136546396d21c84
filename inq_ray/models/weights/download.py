"""Files that all processes of a node need and one of them creates: torch.hub's folder of downloaded weights."""

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
# torch.hub.HASH_REGEX, except that a few letters after a hyphen are not a hash.
_SUM = re.compile(r"-([a-f0-9]{8,})\.")


def checkpoints_folder() -> Path:
    """Return the folder of torch.hub ($TORCH_HOME/hub/checkpoints), which torchvision uses as well."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def cached(url: str) -> Path:
    """Return a downloaded file. The node's first process that needs it downloads it; others wait.

    The names of torch's files end in the first digits of their SHA-256: a file with another digest is refused.

    Raises:
        ValueError: It cannot be downloaded or written, or its digest is wrong; one line with the remedy.
        TimeoutError: Another process has been downloading for longer than `WAIT_SECONDS`.
    """
    path = checkpoints_folder() / Path(urlparse(url).path).name
    found = _SUM.search(path.name)
    digits = found.group(1) if found else ""

    def make(partial: Path) -> None:
        try:
            torch.hub.download_url_to_file(url, str(partial), digits or None, progress=False)
        except Exception as error:  # of urllib, http.client, the system, or torch's RuntimeError for a wrong digest
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise ValueError(
                f"weights: cannot download {url} to {path.parent}: {str(reason).splitlines()[0]}; download it on "
                "a machine with internet access, and pass --weights FILE"
            ) from error

    return once(path, make, lambda: _has_sum(path, digits))


def once(path: Path, make: Callable[[Path], None], is_right: Callable[[], bool] = lambda: True) -> Path:
    """Return `path`, created by at most one process of the node, under a temporary name first.

    Args:
        path: The file. If it exists and is right, it is used as it is.
        make: Writes the file at the path that it is given; its exceptions are passed on.
        is_right: Returns whether an existing file can be used.

    Raises:
        ValueError: The folder is not writable.
        TimeoutError: Another process has been creating it for longer than `WAIT_SECONDS`.
    """
    if path.is_file() and is_right():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(locked(path.with_name(f"{path.name}.lock"), wait_seconds=WAIT_SECONDS))
            if not (path.is_file() and is_right()):
                make(stack.enter_context(whole(path, temporary=path.with_name(f"{path.name}.partial"))))
    except HeldError as error:
        raise TimeoutError(
            f"another process has been downloading weights for more than {WAIT_SECONDS:.0f} s ({error}): "
            "end it if it hangs, or pass --weights FILE"
        ) from None
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
        raise ValueError(
            f"weights: cannot write {path.name} to {path.parent}: {error.strerror or error}; set TORCH_HOME to a "
            "folder with free space"
        ) from error
    return path


def _has_sum(path: Path, digits: str) -> bool:
    """Return whether the SHA-256 of a file begins with these hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(digits)
