"""A sweep on a Ray cluster: Ray Tune over Ray Train, driven by the sweep's registry."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from inq_ray.cluster.connection import connected, in_words
from inq_ray.cluster.tune.drive import Drive
from inq_ray.cluster.tune.space import axis_of
from inq_ray.files.whole import remove_partial, write_text
from inq_ray.sweep.console import SweepConsole
from inq_ray.sweep.picture import can_draw, draw
from inq_ray.sweep.plan import SweepPlan, plan_sweep, recipe_of
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.sweep.space.space import Space
from inq_ray.sweep.trials.ranking import best_of
from inq_ray.sweep.trials.trial import Trial
from inq_ray.training.config import RunConfig
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.flags.command import command_of


class SweepInterrupted(KeyboardInterrupt):
    """A sweep was ended by a signal; the same command continues it."""


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """Result of a sweep.

    Attributes:
        trials: All trials.
        best: Trial with the highest accuracy on held-out images; None if none finished.
        test: Accuracy of the best trial on the test set; None if there is no test set.
    """

    trials: Sequence[Trial]
    best: Trial | None
    test: Accuracy | None


def search(
    base: RunConfig, space: Mapping[str, Any], options: SearchOptions | None = None, *, verbose: bool = False
) -> SweepResult:
    """Run a sweep from Python.

    Args:
        base: Configuration common to all trials; without ``data.holdout`` a tenth of the training images is held out.
        space: Search space by dotted names of fields, such as "training.lr": objects of ``ray.tune`` (choice,
            grid_search, uniform, loguniform, randint) or axes of :mod:`inq_ray.sweep.space.axes`.
        options: Search options; None = a grid.
        verbose: Whether to show Ray's own log.

    Raises:
        ValueError: Something is not allowed; nothing was started.
        SweepInterrupted: The process received a signal.
    """
    axes = {name: axis_of(name, domain) for name, domain in space.items()}
    return run_sweep(plan_sweep(base, Space(axes), options or SearchOptions()), SweepConsole(), verbose=verbose)


def run_sweep(plan: SweepPlan, console: SweepConsole, *, verbose: bool = False) -> SweepResult:
    """Run a sweep, or continue it, to its end.

    Args:
        plan: Plan from :func:`inq_ray.sweep.plan.plan_sweep`.
        console: Console output.
        verbose: Whether to show Ray's own log.

    Raises:
        ValueError: A trial would never fit, or the sweep of this name is a different one, or is running; or the
            accuracy of the given weights cannot be right.
        SweepInterrupted: The process received a signal; the table so far has been printed.
    """
    began = time.monotonic()
    with plan.held(console.say):
        if plan.base.output.overwrite:
            plan.discard_checkpoints()
            plan.folder.clear()
        remove_partial(plan.folder.path)
        state = plan.folder.read()
        registry = plan.registry(state)
        if state is not None and state["origin"]["numerics"] != plan.origin.numerics:
            console.say(
                "the program, a library or the kind of processor has changed since this sweep began: unfinished "
                "trials may have the bits of neither"
            )
        drive = Drive(plan, registry, console, state)
        console.wait_for(in_words())
        with connected(plan.base.cluster, verbose=verbose):
            is_over = registry.is_over or drive.tune()
            if drive.refusal is not None:
                console.close()
                if state is None:
                    plan.folder.clear()  # nothing was trained, and the name is free again
                raise ValueError(drive.refusal)
            best = best_of(registry.trials)
            if is_over and best is not None:
                console.wait_for("measuring the best trial on the test set")
                drive.measure(best)
        console.show_result(registry.trials, drive.test, plan.info.num_classes, time.monotonic() - began)
        leave(plan, registry.trials, console)
        drive.tidy(is_over)
    if not is_over:
        raise SweepInterrupted
    return SweepResult(trials=registry.trials, best=best, test=drive.test)


def leave(plan: SweepPlan, trials: Sequence[Trial], console: SweepConsole) -> None:
    """Write a sweep's picture, and the best configuration as a file and as a command; a full disk ends nothing.

    Args:
        plan: Plan of the sweep.
        trials: All trials.
        console: Console output.
    """
    if can_draw():
        network, data = plan.base.network.arch, PurePosixPath(plan.base.data.data).name
        try:
            draw(trials, plan.folder.picture, f"{network} on {data}")
        except OSError as error:
            console.say(f"the picture cannot be written: {error}")
        else:
            console.say(f"picture   {plan.folder.picture}")
    best = best_of(trials)
    if best is None:
        return
    recipe = recipe_of(best)
    try:
        write_text(plan.folder.recipe, recipe.to_json() + "\n")
    except OSError as error:
        console.say(f"the recipe cannot be written: {error}")
    console.show_best(best, command_of(recipe), str(plan.folder.recipe))
