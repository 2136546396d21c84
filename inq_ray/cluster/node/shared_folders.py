"""Whether all nodes see the folders that a run writes to: the driver puts a file there, and every worker looks for it.

Without it a run would go well until rank 0 comes to be on another node, and would begin again there.
"""

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from inq_ray.cluster.node.interface import node_address
from inq_ray.training.checkpoint.checkpoints import store_of
from inq_ray.training.config import RunConfig
from inq_ray.training.run_folder import RunFolder

_PREFIX = ".seen-by-all-"
# Shared folders may show a new file a little late.
_WAIT_SECONDS = 5.0


def folders_of(config: RunConfig) -> dict[str, Path]:
    """Return the folders that a run writes to, by flag, but object stores: an address means the same everywhere."""
    folders = {"--storage-path": RunFolder.planned(config).path}
    checkpoints = store_of(config).location
    if config.output.checkpoint_path is not None and checkpoints.is_local:
        folders["--checkpoint-path"] = Path(checkpoints.path)
    return folders


@contextlib.contextmanager
def marked(folders: Mapping[str, Path]) -> Iterator[str]:
    """Put a file into each folder for the time of the block.

    Its name is a new one each time, so that no node can have kept in mind that it is not there.

    Args:
        folders: Folders by flag.

    Yields:
        The name of the files, for :func:`check_seen`.

    Raises:
        ValueError: A folder cannot be written to.
    """
    name = f"{_PREFIX}{secrets.token_hex(8)}"
    try:
        for flag, folder in folders.items():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for left in folder.glob(f"{_PREFIX}*"):
                    left.unlink(missing_ok=True)
                (folder / name).touch()
            except OSError as error:
                raise ValueError(f"{flag}: cannot write to {folder} ({error.strerror}): take another") from error
        yield name
    finally:
        for folder in folders.values():
            with contextlib.suppress(OSError):  # it may have been deleted, or its disk be full
                (folder / name).unlink(missing_ok=True)


def check_seen(folders: Mapping[str, Path], name: str) -> None:
    """Check that this node sees the driver's files; call it on every worker before it reads or writes anything.

    Args:
        folders: Folders by flag.
        name: Name of the files, by :func:`marked`.

    Raises:
        ValueError: This node does not see a folder; one line with node and flag.
    """
    deadline = time.monotonic() + _WAIT_SECONDS
    for flag, folder in folders.items():
        while not (folder / name).exists():
            if time.monotonic() > deadline:
                raise ValueError(
                    f"node {node_address()} does not see what the driver writes to {folder}: {flag} "
                    "must be a folder that all nodes share"
                )
            time.sleep(0.1)
