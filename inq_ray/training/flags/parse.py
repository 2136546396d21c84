"""Flags of the job that quantizes -> a checked configuration, and what to do with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from inq_ray.files.shown import quoted, shown
from inq_ray.models.pretrained import has_weights
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import check_options, declared, option
from inq_ray.training.flags.read import read_flags
from inq_ray.training.flags.start import start_of, with_values
from inq_ray.training.flags.words import is_flag

# Flags of INQ-pytorch's example that stand for another one with a value; the others are aliases of options.
_PHRASES = {
    "--no-quantize": ("--plain",),
    "--pretrained": ("--weights", "DEFAULT"),
    "--quantize": ("--no-plain",),
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


@dataclass(frozen=True, kw_only=True)
class Start:
    """What flags start from. Flags override it."""

    recipe: str | None = option(
        None,
        "Recipe to start from, such as resnet18-3bit, or lossless for any network and bits; by default that of the "
        "network and bits.",
        is_first=True,
    )
    config: str | None = option(None, "The config.json of an earlier run to start from.")
    verbose: bool = option(False, "Show what Ray itself logs.")


@dataclass(frozen=True, kw_only=True)
class Action(Start):
    """What to do."""

    evaluate: bool = option(
        False, "Print top-1 and top-5 of the network as it is, and write nothing.", aliases=("-e",), is_first=True
    )
    dry_run: bool = option(
        False,
        "Check everything, print the plan, and write nothing; with --evaluate measure given weights too.",
        is_first=True,
    )
    log_format: Literal["text", "json"] = option(
        "text",
        "Form in which a run reports: lines for people, or JSON objects, one a line, with time, run, rank and stage.",
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a command line asks for.

    Attributes:
        run: The configuration.
        action: What to do with it.
        given: Dotted names of the options that were typed.
    """

    run: RunConfig = field(default_factory=RunConfig)
    action: Action = field(default_factory=Action)
    given: frozenset[str] = field(default=frozenset(), compare=False)


def parse(arguments: Sequence[str], program: str = "inq-ray quantize") -> Command:
    """Read the flags of a job; defaults are those of the recipe, or of the file, that the flags name.

    Args:
        arguments: Words of the command line.
        program: Name of the command, for --help.

    Raises:
        ValueError: A flag or its value is not allowed; one line.
        SystemExit: After printing the help that was asked for.
    """
    run, actions = declared(RunConfig), declared(Action)
    typed = read_flags(
        our_words(arguments),
        [*run.values(), *actions.values()],
        program=program,
        what="Make every weight of a network's convolutions and linear layers 0 or a power of two, on Ray workers.\n\n"
        "Example: --data imagenet --arch resnet18 --weights DEFAULT --weight-bits 5 --num-workers 8 --use-gpu",
        defaults=run_defaults,
    )
    given = {name: value for name, value in typed.items() if name in run}
    action = Action(**{name: value for name, value in typed.items() if name in actions})
    start = start_of(given, recipe_name=action.recipe, file=action.config)
    run_config = with_values(start, given)
    check_pretrained(arguments, run_config.network.arch)
    return Command(run=run_config, action=action, given=frozenset(given))


def our_words(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with what phrases of INQ-pytorch's example stand for.

    Raises:
        ValueError: One is a flag of theirs for what is different here.
    """
    words: list[str] = []
    for index, argument in enumerate(arguments):
        flag = argument.partition("=")[0].replace("_", "-")
        if flag in _REPLACED:
            raise ValueError(f"{argument.partition('=')[0]} of INQ-pytorch's example is here {_REPLACED[flag]}")
        if flag in _PHRASES:
            value = argument.partition("=")[2] or next(iter(arguments[index + 1 :]), "--")
            if "=" in argument or not is_flag(value):
                raise ValueError(f"{flag} takes no value, got {quoted(value)}: leave that out")
        words += _PHRASES.get(flag, (argument,))
    return words


def check_pretrained(arguments: Sequence[str], arch: str) -> None:
    """Refuse --pretrained, which stands for --weights DEFAULT, where a network has no trained weights by name.

    Raises:
        ValueError: It has none, or there is no such network.
    """
    if "--pretrained" in arguments and not has_weights(arch):
        raise ValueError(
            f"--pretrained: there are no trained weights of {shown(arch)}: name a file by --weights, or train the "
            "network first by --float-epochs N"
        )


def run_defaults(typed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a run has if these were typed, for --help."""
    run = declared(RunConfig)
    given = {name: value for name, value in typed.items() if name in run}
    start = start_of(given, recipe_name=typed.get("recipe"), file=typed.get("config"))
    return {name: each.of(start) for name, each in run.items()}
