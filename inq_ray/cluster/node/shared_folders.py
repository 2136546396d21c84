"""Check that all nodes share the folders that a run writes to: workers look for the driver's file of this attempt.

Without a shared folder a run would work until rank 0 moves to another node, and would begin again there.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from inq_ray.cluster.node.interface import node_address
from inq_ray.training.checkpoint.checkpoints import store_of
from inq_ray.training.config import RunConfig
from inq_ray.training.run_folder import RunFolder

# Shared folders may show a new file with a delay.
_WAIT_SECONDS = 5.0


def folders_of(config: RunConfig) -> dict[str, Path]:
    """Return the folders that a run writes to, by flag; object stores, which all nodes reach, are left out."""
    folders = {"--storage-path": RunFolder.planned(config).path}
    checkpoints = store_of(config).location
    if config.output.checkpoint_path is not None and checkpoints.is_local:
        folders["--checkpoint-path"] = Path(checkpoints.path)
    return folders


def check_seen(folders: Mapping[str, Path], name: str) -> None:
    """Check that this node sees the driver's files; every worker calls it before it reads or writes anything.

    Args:
        folders: Folders by flag.
        name: Name of the files, from :func:`inq_ray.training.attempt.begun`.

    Raises:
        ValueError: This node does not see a folder; one line with node and flag.
    """
    deadline = time.monotonic() + _WAIT_SECONDS
    for flag, folder in folders.items():
        while not (folder / name).exists():
            if time.monotonic() > deadline:
                raise ValueError(
                    f"node {node_address()} does not see files that the driver writes to {folder}: {flag} "
                    "must be a folder that all nodes share"
                )
            time.sleep(0.1)
