"""Paths that mean the same in every process: workers have working directories of their own."""

import os
from pathlib import Path

from inq_ray.models.weight_files import is_weights_file
from inq_ray.training.config import RunConfig


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The configuration with paths from the root; names of data and weights, and addresses, stay.

    Raises:
        ValueError: a path's ~ stands for nobody's home; names the flag.
    """
    data, weights = config.data.data, config.network.weights
    return config.replace(
        data={"data": data if data in ("digits", "") or "://" in data else _absolute("--data", data)},
        network={"weights": _absolute("--weights", weights) if weights and is_weights_file(weights) else weights},
        output={"storage_path": _absolute("--storage-path", config.output.storage_path)},
    )


def _absolute(flag: str, path: str) -> str:
    """The path from the root, with the home that ~ stands for."""
    try:
        return os.path.abspath(Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{flag} {path}: {error}") from None
