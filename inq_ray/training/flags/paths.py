"""Paths that mean the same in every process: workers have working directories of their own."""

import os
from pathlib import Path

from inq_ray.data.source import named_source
from inq_ray.models.weight_files import is_weights_file
from inq_ray.storage.address import check_slashes
from inq_ray.training.checkpoint.resume import AUTO, NEVER
from inq_ray.training.config import RunConfig


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The configuration with paths from the root; names of data and weights, and addresses, stay.

    Raises:
        ValueError: a path is empty, an address has one slash, or a ~ stands for nobody's home; names the flag.
    """
    data, output = config.data.data, config.output
    checkpoints = output.checkpoint_path
    return config.replace(
        data={"data": data if named_source(data) else _absolute("--data", data)},
        network={"weights": _weights("--weights", config.network.weights)},
        training={"teacher": _weights("--teacher", config.training.teacher)},
        output={
            "storage_path": _absolute("--storage-path", output.storage_path),
            "checkpoint_path": None if checkpoints is None else _absolute("--checkpoint-path", checkpoints),
            "resume": output.resume if output.resume in (AUTO, NEVER) else _absolute("--resume", output.resume),
        },
    )


def _weights(flag: str, weights: str | None) -> str | None:
    return _absolute(flag, weights) if weights and is_weights_file(weights) else weights


def _absolute(flag: str, path: str) -> str:
    """The path from the root, with the home that ~ stands for; an address as it is."""
    if not path:
        raise ValueError(f"{flag} '' is no path: name one, or leave the flag out")
    check_slashes(path, flag)
    if "://" in path:
        return path
    try:
        return os.path.abspath(Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{flag} {path}: {error}") from None
