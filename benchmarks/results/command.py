"""The command of a run, held to the configuration that the run had."""

import dataclasses
import re
import shlex
from pathlib import PurePosixPath
from typing import Any

from inq_ray.training.config import RunConfig
from inq_ray.training.flags.parse import parse

JOB = "jobs/quantize_imagenet.py"

# Fields that hold a path, of which only the last part says what was run and not where.
_PATHS = (
    ("data", "data"),
    ("network", "weights"),
    ("training", "teacher"),
    ("output", "storage_path"),
    ("output", "checkpoint_path"),
)


def portable(config: RunConfig) -> dict[str, Any]:
    """The configuration as JSON has it, without the folders of any machine."""
    values: dict[str, Any] = dataclasses.asdict(config)
    for section, field in _PATHS:
        value = values[section][field]
        if value is not None:
            values[section][field] = PurePosixPath(value).name
    if values["output"]["resume"] not in ("auto", "never"):
        values["output"]["resume"] = PurePosixPath(values["output"]["resume"]).name
    return values


def check_command(command: str, config: RunConfig) -> None:
    """Checks that a command is one that anybody can give in a checkout, and that it asks for this configuration.

    Raises:
        ValueError: it is not, or does not; one line.
    """
    words = shlex.split(command)
    if JOB not in words:
        raise ValueError(f"--command must run {JOB}, got {command!r}")
    for word in words:
        if word.startswith(("/", "~")) or re.search(r"=[/~]", word):
            raise ValueError(f"--command names {word}, a place of one machine: give the path from the checkout")
    asked, had = (_flat(portable(each)) for each in (parse(words[words.index(JOB) + 1 :]).run, config))
    for name, value in had.items():
        if not name.startswith("output.") and asked[name] != value:
            raise ValueError(f"--command asks for {name} {asked[name]!r}, the run had {value!r}")


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Fields by section.field."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= {f"{name}.{field}": each for field, each in value.items()} if isinstance(value, dict) else {name: value}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in flat.items()}
