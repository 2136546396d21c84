"""Absolute paths in configurations: workers have other working directories."""

import os
from pathlib import Path

from inq_ray.files.shown import shown
from inq_ray.storage.address import check_slashes
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import declared
from inq_ray.training.flags.start import with_values
from inq_ray.training.flags.words import check_printable

# Linux's limit in bytes, minus what a run appends to a path.
_LONGEST_PATH = 3500
_LONGEST_NAME = 255


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Return the configuration with absolute paths; names of data and weights, and addresses, are unchanged.

    Raises:
        ValueError: A value has control characters, a path is empty or too long, an address has a single slash, or the
            home folder of a ~ does not exist; names the flag.
    """
    paths: dict[str, str] = {}
    for name, each in declared(config).items():
        is_name, value = each.option.path, each.of(config)
        for text in value if isinstance(value, tuple) else (value,):
            check_printable(each.flag, text)
        if is_name is not None and value is not None and not is_name(value):
            paths[name] = _absolute(each.flag, value)
    return with_values(config, paths)


def _absolute(flag: str, path: str) -> str:
    """Return the absolute path, with ~ expanded; addresses are unchanged."""
    if not path:
        raise ValueError(f"{flag} '' is not a path: name one, or leave the flag out")
    longest = max(len(os.fsencode(name)) for name in path.split("/"))
    if longest > _LONGEST_NAME or len(os.fsencode(path)) > _LONGEST_PATH:
        raise ValueError(
            f"{flag} {shown(path, 60)} is too long: a path may have at most {_LONGEST_PATH} bytes, and each name in it "
            f"at most {_LONGEST_NAME}"
        )
    check_slashes(path, flag)
    if "://" in path:
        return path
    try:
        return os.path.abspath(Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{flag} {shown(path)}: {shown(error)}") from None
