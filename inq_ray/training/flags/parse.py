"""Flags -> a checked configuration, by tyro from the configuration's own classes."""

import argparse
import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import tyro

from inq_ray.data.source import default_arch
from inq_ray.training.config import DataConfig, RunConfig
from inq_ray.training.config.recipes import LOSSLESS, default_recipe, lossless_recipe, of_trained, recipe, trained_first

# Names of INQ-pytorch's example, and of torch's ImageNet example before it, in our words.
_ALIASES = {
    "-a": ("--arch",),
    "-b": ("--batch-size",),
    "-e": ("--evaluate",),
    "-j": ("--loader-workers",),
    "-p": ("--print-freq",),
    "--learning-rate": ("--lr",),
    "--log-dir": ("--storage-path",),
    "--log_dir": ("--storage-path",),
    "--no-quantize": ("--plain",),
    "--pretrained": ("--weights", "DEFAULT"),
    "--quantize": ("--no-plain",),
    "--wd": ("--weight-decay",),
    "--workers": ("--loader-workers",),
}

# Flags of theirs for what is different here.
_REPLACED = {
    "--dist-backend": "nothing: nccl on GPUs, gloo on CPUs",
    "--dist-url": "nothing: Ray brings the workers together (RAY_ADDRESS names a cluster)",
    "--gpu": "--use-gpu, and as many --num-workers as GPUs",
    "--multiprocessing-distributed": "--num-workers N --use-gpu",
    "--rank": "nothing: Ray counts the workers",
    "--world-size": "--num-workers N",
}


_Flags = TypeVar("_Flags")


@dataclass(frozen=True, kw_only=True)
class Command:
    """Makes every weight of a trained network's convolutions and linear layers 0 or a power of two, on Ray workers."""

    run: RunConfig = field(default_factory=RunConfig)
    evaluate: bool = False
    """Print top-1 and top-5 of the network as it is, and write nothing."""
    dry_run: bool = False
    """Check everything, print the plan, and write nothing."""
    recipe: str | None = None
    """Start from a recipe, such as resnet18-3bit, or lossless for any network and bits; by default that of the network
    and bits. Flags override it."""
    config: str | None = None
    """Start from the config.json of an earlier run. Flags override it."""
    verbose: bool = False
    """Show what Ray itself logs."""
    log_format: Literal["text", "json"] = "text"
    """What a run tells: lines for people, or JSON objects, one a line, with time, run, rank and stage."""


def parse(arguments: Sequence[str]) -> Command:
    """Reads the flags of a job; defaults are those of the recipe, or of the file, that the flags name.

    Raises:
        ValueError: a flag or its value is not allowed; one line.
        SystemExit: after printing the help that was asked for.
    """
    arguments = [part for argument in arguments for part in our_words(argument)]
    defaults = Command(run=defaults_of(arguments))
    command = in_one_line(lambda: _parse(arguments, defaults))
    if command.evaluate and command.dry_run:
        raise ValueError("--evaluate and --dry-run exclude each other")
    return command


def in_one_line(parse: Callable[[], _Flags]) -> _Flags:
    """Returns what tyro reads from flags; what it does not allow becomes one line instead of a box.

    Raises:
        ValueError: a flag or its value is not allowed.
        SystemExit: after printing the help that was asked for.
    """
    with _plain_output() as output:
        try:
            return parse()
        except SystemExit as stop:
            if stop.code:
                raise ValueError(_one_line(output.getvalue())) from None
    return parse()  # prints the help, with the terminal's width and colours, and exits


def _parse(arguments: list[str], defaults: Command) -> Command:
    return tyro.cli(tyro.conf.OmitArgPrefixes[Command], args=arguments, default=defaults)


@contextlib.contextmanager
def _plain_output() -> Iterator[io.StringIO]:
    """Catches what is printed; tyro has no terminal there, so no colours, and all the width it wants."""
    output = io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100000"
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield output
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns


def our_words(argument: str) -> list[str]:
    """What an alias stands for, with its value if that is part of it (--wd=0.1); other arguments as they are.

    Raises:
        ValueError: it is a flag of theirs for what is different here.
    """
    flag, equals, value = argument.partition("=")
    if flag.replace("_", "-") in _REPLACED:
        raise ValueError(f"{flag} of INQ-pytorch's example is here {_REPLACED[flag.replace('_', '-')]}")
    first, *rest = _ALIASES.get(flag, (flag,))
    return [first + equals + value, *rest]


def flags_in(arguments: Sequence[str]) -> set[str]:
    """The flags that were typed, by our names.

    Raises:
        ValueError: as :func:`our_words`.
    """
    words = [word for argument in arguments for word in our_words(argument)]
    return {word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")}


def defaults_of(arguments: Sequence[str]) -> RunConfig:
    """Where the flags of a job start from: what --config or --recipe name, else the recipe of the network and bits.

    Raises:
        ValueError: there is no such recipe or file, or both are given.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in ("--data", "--arch", "--weights", "--recipe", "--config", "--weight-bits", "--weight_bits"):
        first.add_argument(flag)
    for flag in ("--epochs", "--lr", "--epochs-total", "--epochs_total", "--float-epochs", "--float_epochs"):
        first.add_argument(flag)
    for flag in ("--ema-decay", "--ema_decay", "--ema-share", "--ema_share"):
        first.add_argument(flag)
    for flag in ("--epochs-each", "--epochs_each", "--iterative-steps", "--iterative_steps"):
        first.add_argument(flag, nargs="+")
    first.add_argument("--plain", action="store_true")
    try:
        known, _ = first.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(str(error).removeprefix("argument ")) from None
    for flag, values in (("--iterative-steps", known.iterative_steps), ("--epochs-each", known.epochs_each)):
        if any("," in value for value in values or ()):
            raise ValueError(f"{flag} {' '.join(values)}: put blanks between the numbers, no commas")
    if known.config is not None and known.recipe is not None:
        raise ValueError("--config and --recipe exclude each other")
    if known.config is not None:
        start = RunConfig.from_file(known.config)
        return _for_flags(start.evenly() if known.iterative_steps else start, known)
    arch = known.arch or default_arch(DataConfig.data if known.data is None else known.data)
    bits = int(known.weight_bits) if re.fullmatch(r"[2-8]", known.weight_bits or "") else 5
    if known.recipe is None:
        start = default_recipe(arch, bits)
    else:
        start = lossless_recipe(arch, bits) if known.recipe == LOSSLESS else recipe(known.recipe)
        if known.recipe == LOSSLESS and known.weights is not None:
            start = of_trained(start)
    if known.float_epochs and known.float_epochs != "0":
        start = trained_first(start)
    if known.iterative_steps:  # what a recipe says of each stage is of its own ones
        start = start.evenly()
    start = _for_flags(start, known)
    return _without_float_training(start, plain=known.plain, trained=known.weights is not None)


def _for_flags(start: RunConfig, known: argparse.Namespace) -> RunConfig:
    """Without what the start says in another way than the flags: epochs of each stage, of one or of all, averages."""
    training = start.training
    has_each, has_total, has_epochs = known.epochs_each, known.epochs_total, known.epochs
    return start.replace(
        training={
            "epochs_each": () if has_epochs or has_total else training.epochs_each,
            "epochs_total": None if has_epochs or has_each else training.epochs_total,
            "lr_each": () if known.lr else training.lr_each,
            "ema_decay": None if known.ema_share else training.ema_decay,
            "ema_share": None if known.ema_decay else training.ema_share,
        }
    )


def _without_float_training(start: RunConfig, *, plain: bool, trained: bool) -> RunConfig:
    """The recipe without training before the first stage where it needs not be, or without stages if it is all."""
    if plain:  # what a recipe says of stages is nothing to it
        start = replace(start, training=default_recipe(start.network.arch, start.quantization.weight_bits).training)
    training = start.training
    if training.float_epochs == 0 or not (plain or trained):
        return start
    if plain:
        start = start.replace(training={"epochs": training.float_epochs, "lr": training.float_lr})
    return start.replace(training={"float_epochs": 0})


def _one_line(box: str) -> str:
    """The message of tyro's box, without borders and rules, and the flags it suggests."""
    lines = [line.strip("│| ") for line in box.splitlines()[1:]]  # the first line is the border with the title
    message: list[str] = []
    suggested: list[str] | None = None
    for line in lines:
        if not line.strip("-─╰╯+") or line.startswith("For full helptext"):
            continue
        if line.startswith("Argument helptext"):
            break
        if line.startswith("Perhaps you meant"):
            suggested = []
        elif suggested is None:
            message.append(line)
        elif line.startswith("--"):
            suggested.append(line.split()[0].rstrip(","))
    text = " ".join(message)
    checked = re.match(r"Error parsing \w+(\.\w+)?: ", text)
    if checked:
        return text[checked.end() :]  # what our own checks say needs nothing around it
    hint = f"; did you mean {' or '.join(suggested)}?" if suggested else ""
    return f"{text}{hint} (--help lists all flags)"
