"""Flags of a sweep -> what its trials have in common, what is searched, and how."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import tyro

from inq_ray.sweep.space.options import SpaceOptions, space_of
from inq_ray.sweep.space.search_options import SearchOptions, flag_of
from inq_ray.sweep.space.space import BITS, EPOCHS, LR, SCHEDULE
from inq_ray.training.checkpoint.resume import differences
from inq_ray.training.config import RunConfig
from inq_ray.training.flags.parse import defaults_of, flags_in, in_one_line, our_words


@dataclass(frozen=True, kw_only=True)
class SweepCommand:
    """Looks for portions, learning rates and bits, on Ray workers; stages that trials share are trained once."""

    space: SpaceOptions = field(default_factory=SpaceOptions)
    search: SearchOptions = field(default_factory=SearchOptions)
    run: RunConfig = field(default_factory=RunConfig)
    dry_run: bool = False
    """Check everything, list the trials and what they share, and write nothing."""
    recipe: str | None = None
    """Start from a named recipe, such as resnet18-3bit; by default that of the network and bits. Flags override it."""
    config: str | None = None
    """Start from the config.json of an earlier run. Flags override it."""
    verbose: bool = False
    """Show what Ray itself logs."""


def parse(arguments: Sequence[str]) -> SweepCommand:
    """Reads the flags of a sweep; those of a run are read as the job of a single run reads them.

    Raises:
        ValueError: a flag or its value is not allowed; one line.
        SystemExit: after printing the help that was asked for.
    """
    words = [part for argument in arguments for part in our_words(argument)]
    defaults = SweepCommand(run=defaults_of(words))
    command = in_one_line(lambda: tyro.cli(tyro.conf.OmitArgPrefixes[SweepCommand], args=words, default=defaults))
    _check_said(command, defaults, words)
    return _of_any_stages(command, words)


def _of_any_stages(command: SweepCommand, words: Sequence[str]) -> SweepCommand:
    """Where portions are searched, without what a recipe or file says of each of its stages; what flags say stays."""
    if SCHEDULE not in space_of(command.space).axes or flags_in(words) & {"--epochs-each", "--lr-each"}:
        return command
    return replace(command, run=command.run.evenly())


def _check_said(command: SweepCommand, defaults: SweepCommand, words: Sequence[str]) -> None:
    """Refuses flags that would play no part, because others say the same."""
    given, flags = differences(defaults.run, command.run), flags_in(words)
    if "--holdout" in flags and command.run.data.holdout == 0:
        raise ValueError("--holdout 0: choices are made on held-out images alone: give their number, or leave it out")
    workers = command.search.workers_per_trial or command.search.gpus_per_trial
    if workers is not None and "cluster.num_workers" in given and command.run.cluster.num_workers != workers:
        raise ValueError(
            f"--num-workers {command.run.cluster.num_workers} and {workers} per trial say different things"
        )
    for each in fields(SpaceOptions):
        flag = flag_of(each.name)
        if flag in flags and getattr(command.space, each.name) == ():
            raise ValueError(f"{flag} has no value: give at least one, or leave it out")
    axes = space_of(command.space).axes
    for name, others in ((LR, ["--lr-each"]), (EPOCHS, ["--epochs-each", "--epochs-total"])):
        for flag in others:
            if name in axes and flag in flags:
                raise ValueError(f"{flag} plays no part: {name} is searched, which is the same for all stages")
    for name in axes:
        flag = flag_of(name)
        if (name in given or flag in flags) and name != BITS:  # --weight-bits says the recipe too
            raise ValueError(
                f"{flag} plays no part: {name} is searched; give its values to the sweep's own flag, or by --space"
            )
