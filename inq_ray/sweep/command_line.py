"""Flags of a sweep -> what its trials have in common, what is searched, and how."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import tyro

from inq_ray.sweep.options import SearchOptions, SpaceOptions
from inq_ray.training.command_line import defaults_of, in_one_line, our_words
from inq_ray.training.config import RunConfig


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
    if command.run.plain:
        raise ValueError("--plain has no stages, and so nothing to sweep over")
    if command.run.output.resume != "auto":
        raise ValueError("--resume is of a single run: a sweep goes on by itself, by the same command")
    workers = command.run.cluster.workers
    if workers.least != workers.most:
        raise ValueError(f"--num-workers {workers}: trials compare, and share stages, at one number of workers only")
    return command
