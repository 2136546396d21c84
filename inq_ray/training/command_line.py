"""Flags -> a checked configuration, by tyro from the configuration's own classes."""

import argparse
import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import tyro

from inq_ray.training.config import RunConfig
from inq_ray.training.recipes import default_recipe, recipe

# Short names of INQ-pytorch's example, and of torch's ImageNet example before it.
_ALIASES = {
    "-a": "--arch",
    "-b": "--batch-size",
    "-e": "--evaluate",
    "--learning-rate": "--lr",
    "--wd": "--weight-decay",
}


@dataclass(frozen=True, kw_only=True)
class Command:
    """Makes every weight of a trained network's convolutions and linear layers 0 or a power of two, on Ray workers."""

    run: RunConfig = field(default_factory=RunConfig)
    evaluate: bool = False
    """Print top-1 and top-5 of the network as it is, and write nothing."""
    dry_run: bool = False
    """Check everything, print the plan, and write nothing."""
    recipe: str | None = None
    """Start from a named recipe, such as resnet18-3bit; by default that of the network and bits. Flags override it."""
    config: str | None = None
    """Start from the config.json of an earlier run. Flags override it."""
    verbose: bool = False
    """Show what Ray itself logs."""


def parse(arguments: Sequence[str]) -> Command:
    """Reads the flags of a job; defaults are those of the recipe, or of the file, that the flags name.

    Raises:
        ValueError: a flag or its value is not allowed; one line.
        SystemExit: after printing the help that was asked for.
    """
    arguments = [_ALIASES.get(argument, argument) for argument in arguments]
    defaults = Command(run=_defaults(arguments))
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            command = tyro.cli(tyro.conf.OmitArgPrefixes[Command], args=arguments, default=defaults)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_one_line(errors.getvalue())) from None
    if command.evaluate and command.dry_run:
        raise ValueError("--evaluate and --dry-run exclude each other")
    return command


def _defaults(arguments: Sequence[str]) -> RunConfig:
    """Where the flags start from: what --config or --recipe name, else the recipe of the network and bits."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in ("--data", "--arch", "--recipe", "--config", "--weight-bits"):
        first.add_argument(flag, flag.replace("-", "_").replace("__", "--"))
    try:
        known, _ = first.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from None
    if known.config is not None and known.recipe is not None:
        raise ValueError("--config and --recipe exclude each other")
    if known.config is not None:
        return RunConfig.from_file(known.config)
    if known.recipe is not None:
        return recipe(known.recipe)
    arch = known.arch or ("digits_cnn" if known.data in (None, "digits") else "resnet18")
    bits = int(known.weight_bits) if re.fullmatch(r"[2-8]", known.weight_bits or "5") and known.weight_bits else 5
    return default_recipe(arch, bits)


def _one_line(box: str) -> str:
    """The message of tyro's bordered box, without its border, and the flags it suggests."""
    lines = [line.strip("│╭╮╰╯─ \n") for line in box.splitlines()]
    message: list[str] = []
    suggestions: list[str] = []
    for line in lines[1:]:  # the first line is the border with the title
        if not line or line.startswith("For full helptext"):
            continue
        if suggestions or line.startswith("Perhaps you meant"):
            suggestions.append(line)
        elif line.startswith("Argument helptext"):
            break
        else:
            message.append(line)
    flags = [line.split()[0].rstrip(",") for line in suggestions if line.startswith("--")]
    hint = f"; did you mean {' or '.join(flags)}?" if flags else ""
    return " ".join(message) + hint + " (--help lists all flags)"
