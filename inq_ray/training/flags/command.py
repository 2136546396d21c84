"""From a configuration to the command that runs it."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import Declared, declared
from inq_ray.training.flags.parse import parse
from inq_ray.training.flags.start import start_of

# Options that determine the recipe from which the others start.
_FIRST = ("data.data", "network.arch", "network.weights", "quantization.weight_bits", "quantization.layer_bits")


def command_of(config: RunConfig) -> str:
    """Return a shell command that runs a configuration, without the options for where results go.

    Parsing it gives the same configuration, which is checked before it is returned.

    Raises:
        ValueError: No flags give this configuration.
    """
    options = {name: each for name, each in declared(config).items() if each.section != "output"}
    words = words_of((options[name] for name in given_of(config)), config)
    read = parse(words).run
    if any(each.of(read) != each.of(config) for each in options.values()):
        raise ValueError(f"no flags give this configuration; the nearest are: {shlex.join(words)}")
    return shlex.join([*program("quantize"), *words])


def given_of(config: RunConfig) -> dict[str, Any]:
    """Return the values, by dotted name, that a command must state; recipes provide the others."""
    options = {name: each for name, each in declared(config).items() if each.section != "output"}
    given: dict[str, Any] = {}
    for names in (*([name] for name in _FIRST), [name for name in options if name not in _FIRST]):
        start = start_of(given)
        given |= {
            name: options[name].of(config) for name in names if options[name].of(config) != options[name].of(start)
        }
    return given


def words_of(options: Iterable[Declared], config: RunConfig) -> list[str]:
    """Return flags that give options their values in a configuration."""
    words: list[str] = []
    for each in options:
        value = each.of(config)
        if isinstance(value, bool):
            words.append(each.flag if value else f"--no-{each.flag[2:]}")
        else:
            words += [each.flag, *map(_text, value if isinstance(value, tuple) else (value,))]
    return words


def _text(value: Any) -> str:
    """Return the shortest text that is read back as the same number."""
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def program(command: str) -> list[str]:
    """Return the words that run a command of this environment's `inq-ray` from the current folder."""
    script = Path(sys.executable).with_name("inq-ray")
    if not script.exists():
        return [_shown(sys.executable), "-m", "inq_ray", command]
    is_on_path = shutil.which("inq-ray") == str(script)
    return ["inq-ray" if is_on_path else _shown(str(script)), command]


def _shown(path: str) -> str:
    """Return a path as a user would type it in the current folder."""
    below = os.path.relpath(path)
    return path if below.startswith("..") else below
