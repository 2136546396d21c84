"""A configuration as the command that runs it."""

import dataclasses
import shlex
from typing import Any

from inq_ray.training.config import RunConfig
from inq_ray.training.flags.parse import defaults_of, parse

JOB = ("python", "jobs/quantize_imagenet.py")
# Flags that decide from which recipe the others start.
_FIRST = ("data.data", "network.arch", "network.weights", "quantization.weight_bits")


def command_of(config: RunConfig) -> str:
    """A line for a shell that runs a configuration; where results go is left out.

    Reading it gives the configuration, field by field: that is looked at before it is returned.

    Raises:
        ValueError: no flags give this configuration.
    """
    asked = _without_output(config)
    values = _values(asked)
    words: list[str] = []
    for name in _FIRST:
        if values[name] != _values(defaults_of(words))[name]:
            words += _words(name, values[name])
    start = _values(defaults_of(words))
    for name, value in values.items():
        if name not in _FIRST and value != start[name]:
            words += _words(name, value)
    if _without_output(parse(words).run) != asked:
        raise ValueError(f"no flags give this configuration: {shlex.join(words)} is the nearest")
    return shlex.join([*JOB, *words])


def _without_output(config: RunConfig) -> RunConfig:
    return dataclasses.replace(config, output=RunConfig().output)


def _values(config: RunConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for section in dataclasses.fields(config):
        value = getattr(config, section.name)
        inner = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
        found |= {f"{section.name}.{each.name}": getattr(value, each.name) for each in inner}
    return found


def _words(name: str, value: Any) -> list[str]:
    flag = name.partition(".")[2].replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{flag}", *map(_text, values)]


def _text(value: Any) -> str:
    """A number as short as it can be read back."""
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)
