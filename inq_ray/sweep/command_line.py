"""Command line of a sweep: from flags to the common configuration, the search space and the search options."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inq_ray.sweep.space.options import SpaceOptions, space_of
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.sweep.space.space import BITS, EPOCHS, LR, SCHEDULE
from inq_ray.training.checkpoint.resume import differences
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import declared, option
from inq_ray.training.flags.parse import Start, check_pretrained, our_words, run_defaults
from inq_ray.training.flags.read import read_flags
from inq_ray.training.flags.start import start_of, with_values


@dataclass(frozen=True, kw_only=True)
class SweepAction(Start):
    """Action of a command line."""

    dry_run: bool = option(
        False, "Check everything, list the trials and the stages they share, and write nothing.", is_first=True
    )


@dataclass(frozen=True, kw_only=True)
class SweepCommand:
    """A parsed command line of a sweep.

    Attributes:
        space: The search space.
        search: The search options.
        run: Configuration common to all trials.
        action: The action to run.
        given: Dotted names of the run's options that were typed.
    """

    space: SpaceOptions = field(default_factory=SpaceOptions)
    search: SearchOptions = field(default_factory=SearchOptions)
    run: RunConfig = field(default_factory=RunConfig)
    action: SweepAction = field(default_factory=SweepAction)
    given: frozenset[str] = field(default=frozenset(), compare=False)


def parse(arguments: Sequence[str], program: str = "inq-ray sweep") -> SweepCommand:
    """Parse the flags of a sweep; those of a run are parsed as for a single run.

    Args:
        arguments: Words of the command line.
        program: Name of the command, for --help.

    Raises:
        ValueError: A flag or its value is not allowed; one line.
        SystemExit: After printing the requested help.
    """
    kinds: tuple[type, ...] = (SpaceOptions, SearchOptions, RunConfig, SweepAction)
    parts = {kind: declared(kind) for kind in kinds}
    typed = read_flags(
        our_words(arguments),
        [each for part in parts.values() for each in part.values()],
        program=program,
        what="Search portions, learning rates and bits, on Ray workers; stages that trials share are trained once.\n\n"
        "Example: --schedules 0.5,0.75,0.875,1 0.5,0.75,0.9,1 --lrs 0.01 0.02 --bits 5 3",
        defaults=run_defaults,
    )

    def of(kind: type) -> dict[str, Any]:
        return {name: value for name, value in typed.items() if name in parts[kind]}

    given, action = of(RunConfig), SweepAction(**of(SweepAction))
    start = start_of(given, recipe_name=action.recipe, file=action.config)
    command = SweepCommand(
        space=SpaceOptions(**of(SpaceOptions)),
        search=SearchOptions(**of(SearchOptions)),
        run=with_values(start, given),
        action=action,
        given=frozenset(given),
    )
    check_pretrained(arguments, command.run.network.arch)
    _check_given(command, start, of(SpaceOptions))
    if SCHEDULE in space_of(command.space).axes and not given.keys() & {"training.epochs_each", "training.lr_each"}:
        # Values per stage from a recipe or file do not apply to searched schedules; those from flags do.
        return dataclasses.replace(command, run=command.run.evenly())
    return command


def _check_given(command: SweepCommand, start: RunConfig, given_space: Mapping[str, Any]) -> None:
    """Refuse flags without effect, because other flags set the same thing."""
    run, options, given = command.run, declared(RunConfig), command.given
    if "data.holdout" in given and run.data.holdout == 0:
        raise ValueError("--holdout 0: sweeps compare trials on held-out images: give a number, or leave it out")
    workers = command.search.workers_per_trial or command.search.gpus_per_trial
    if workers is not None and "cluster.num_workers" in given and run.cluster.num_workers != workers:
        raise ValueError(
            f"--num-workers {run.cluster.num_workers} contradicts {workers} per trial: leave one of them out"
        )
    for name, value in given_space.items():
        if value == ():
            raise ValueError(f"{declared(SpaceOptions)[name].flag} has no value: give at least one, or leave it out")
    axes = space_of(command.space).axes
    for axis, others in (
        (LR, ["training.lr_each", "training.lr_probe"]),
        (EPOCHS, ["training.epochs_each", "training.epochs_total"]),
    ):
        for name in others:
            if axis in axes and name in given:
                raise ValueError(
                    f"{options[name].flag} has no effect: {axis} is searched, with one value for all stages"
                )
    changed = {each.name for each in differences(start, run)} | given
    for name in axes:
        if name in changed and name != BITS:  # --weight-bits selects the recipe too
            raise ValueError(
                f"{options[name].flag} has no effect: {name} is searched; pass its values to the sweep's own flag, or "
                "with --space"
            )
