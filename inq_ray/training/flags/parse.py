"""Command line of a quantization: from flags to a checked configuration and the action to run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from inq_ray.files.shown import quoted, shown
from inq_ray.models.weights.pretrained import has_weights
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import check_options, declared, option
from inq_ray.training.flags.read import read_flags
from inq_ray.training.flags.start import start_of, with_values
from inq_ray.training.flags.words import is_flag

# Flags of INQ-pytorch's example that mean another flag with a value; others are aliases of options.
_PHRASES = {
    "--no-quantize": ("--plain",),
    "--pretrained": ("--weights", "DEFAULT"),
    "--quantize": ("--no-plain",),
}

# Flags of INQ-pytorch's example that work differently here.
_REPLACED = {
    "--dist-backend": "nccl is used on GPUs, gloo on CPUs",
    "--dist-url": "Ray connects the workers (RAY_ADDRESS names a cluster)",
    "--gpu": "use --use-gpu, with as many --num-workers as GPUs",
    "--multiprocessing-distributed": "use --num-workers N --use-gpu",
    "--rank": "Ray numbers the workers",
    "--world-size": "use --num-workers N",
}


@dataclass(frozen=True, kw_only=True)
class Start:
    """Starting values, which flags override."""

    recipe: str | None = option(
        None,
        "Recipe to start from, such as resnet18-3bit, or lossless for any network and bits; default: the recipe of the "
        "network and bits.",
        is_first=True,
    )
    config: str | None = option(None, "Configuration file to start from: the config.json of an earlier run.")
    verbose: bool = option(False, "Show Ray's own log messages.")


@dataclass(frozen=True, kw_only=True)
class Action(Start):
    """Action of a command line."""

    evaluate: bool = option(
        False, "Print top-1 and top-5 of the network, and write nothing.", aliases=("-e",), is_first=True
    )
    dry_run: bool = option(
        False,
        "Check everything, print the plan, and write nothing; with --evaluate measure given weights too.",
        is_first=True,
    )
    log_format: Literal["text", "json"] = option(
        "text",
        "Output format: text for people, or one JSON object per line, with time, run, rank and stage.",
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A parsed command line.

    Attributes:
        run: The configuration.
        action: The action to run.
        given: Dotted names of the options that were typed.
    """

    run: RunConfig = field(default_factory=RunConfig)
    action: Action = field(default_factory=Action)
    given: frozenset[str] = field(default=frozenset(), compare=False)


def parse(arguments: Sequence[str], program: str = "inq-ray quantize") -> Command:
    """Parse the flags of a run; defaults are those of the recipe or file that the flags name.

    Args:
        arguments: Words of the command line.
        program: Name of the command, for --help.

    Raises:
        ValueError: A flag or its value is not allowed; one line.
        SystemExit: After printing the requested help.
    """
    run, actions = declared(RunConfig), declared(Action)
    typed = read_flags(
        our_words(arguments),
        [*run.values(), *actions.values()],
        program=program,
        what="Quantize the weights of all convolutions and linear layers to 0 or powers of two, on Ray workers.\n\n"
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
    """Return the arguments with flags of INQ-pytorch's example replaced by ours.

    Raises:
        ValueError: A flag of that example works differently here.
    """
    words: list[str] = []
    for index, argument in enumerate(arguments):
        flag = argument.partition("=")[0].replace("_", "-")
        if flag in _REPLACED:
            raise ValueError(
                f"{argument.partition('=')[0]} of INQ-pytorch's example is not supported: {_REPLACED[flag]}"
            )
        if flag in _PHRASES:
            value = argument.partition("=")[2] or next(iter(arguments[index + 1 :]), "--")
            if "=" in argument or not is_flag(value):
                raise ValueError(f"{flag} takes no value, got {quoted(value)}: leave the value out")
        words += _PHRASES.get(flag, (argument,))
    return words


def check_pretrained(arguments: Sequence[str], arch: str) -> None:
    """Refuse --pretrained, which means --weights DEFAULT, if the network has no trained weights by name.

    Raises:
        ValueError: The network has none, or does not exist.
    """
    if "--pretrained" in arguments and not has_weights(arch):
        raise ValueError(
            f"--pretrained: there are no pretrained weights for {shown(arch)}: pass a file with --weights, or train "
            "the network first with --float-epochs N"
        )


def run_defaults(typed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a run in which these were typed, for --help."""
    run = declared(RunConfig)
    given = {name: value for name, value in typed.items() if name in run}
    start = start_of(given, recipe_name=typed.get("recipe"), file=typed.get("config"))
    return {name: each.of(start) for name, each in run.items()}
