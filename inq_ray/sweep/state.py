"""Checks of sweep.json, from which a sweep continues; people edit it, and other versions write it."""

import dataclasses
import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inq_ray.files.shown import quoted
from inq_ray.sweep.trials.registry import TRIAL
from inq_ray.sweep.trials.report import End, How
from inq_ray.sweep.trials.trial import Status
from inq_ray.training.config import RunConfig
from inq_ray.training.config.json_values import from_dict
from inq_ray.training.config.option import check_choices
from inq_ray.training.evaluation.accuracy import Accuracy

# Upper bound of numbers: float64 represents all integers up to here.
_MOST = 2**53


@dataclass(frozen=True, kw_only=True)
class SavedTrial:
    """A trial, as saved by :meth:`inq_ray.sweep.trials.trial.Trial.to_json`."""

    name: str
    number: int
    point: dict[str, Any]
    schedule: tuple[float, ...]
    weight_bits: int
    status: str
    ends: tuple[End, ...]
    top1: float | None
    digest: str | None
    reason: str | None
    first_keys: dict[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class SavedSweep:
    """A sweep, as saved by :meth:`inq_ray.sweep.plan.SweepPlan.state`, without parts that are not read again."""

    base: RunConfig
    space: dict[str, dict[str, Any]]
    options: dict[str, Any]
    origin: dict[str, str]
    log: tuple[Any, ...]
    trials: tuple[SavedTrial, ...]
    tested: str | None = None
    test: Accuracy | None = None


def read_state(values: Any) -> SavedSweep:
    """Return the state of a sweep with types checked; unknown names are ignored.

    Raises:
        ValueError: No sweep can have written it; names the value.
    """
    known = _known(SavedSweep, values)
    if isinstance(trials := known.get("trials"), list):
        known["trials"] = [_known(SavedTrial, trial) if isinstance(trial, dict) else trial for trial in trials]
    state = from_dict(SavedSweep, known, where="")
    assert isinstance(state, SavedSweep)
    if "numerics" not in state.origin:
        raise ValueError("origin.numerics is missing")
    num_asked = _check_log(state.log)
    for name in ("name", "number"):
        _check_distinct(f"trials: {name}", [getattr(trial, name) for trial in state.trials])
    for index, trial in enumerate(state.trials):
        _check_trial(f"trials[{index}].", trial, num_asked)
    if (state.tested is not None and state.test is None) or (state.test is not None and not _is_possible(state.test)):
        raise ValueError("tested names a trial, and test is not its accuracy")
    return state


def _is_possible(accuracy: Accuracy) -> bool:
    """Return whether an accuracy counts images of a set that exists."""
    counts = (accuracy.num_top1, accuracy.num_top5)
    return 0 < accuracy.num_samples < _MOST and all(0 <= count <= accuracy.num_samples for count in counts)


def _known(cls: type[Any], values: Any) -> dict[str, Any]:
    """Return the values for which a class has fields."""
    if not isinstance(values, dict):
        raise ValueError(f"the state must be an object of names and values, got {quoted(values)}")
    names = {each.name for each in dataclasses.fields(cls)}
    return {name: value for name, value in values.items() if name in names}


def _check_log(log: Sequence[Any]) -> int:
    """Check the log of the proposer's requests and results; return the number of points."""
    num_asked = 0
    for index, entry in enumerate(log):
        match entry:
            case ["ask", int(number)] if number == num_asked:
                num_asked += 1
            case ["tell", int(number), values, bool()] if 0 <= number < num_asked and _are_objectives(values):
                pass
            case _:
                raise ValueError(f"log[{index}] is {quoted(entry)}, which is not possible at that position")
    return num_asked


def _are_objectives(values: Any) -> bool:
    """Return whether values are accuracy, and bits if they count, or None."""
    if values is None:
        return True
    is_list = isinstance(values, list) and len(values) in (1, 2)
    return is_list and all(type(each) in (int, float) and abs(each) < _MOST for each in values)


def _check_distinct(what: str, values: Sequence[Any]) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"{what} is the same in two of them")


def _check_trial(where: str, trial: SavedTrial, num_asked: int) -> None:
    if not TRIAL.fullmatch(trial.name):
        raise ValueError(f"{where}name must be like t001, got {quoted(trial.name)}")
    if not 0 <= trial.number < num_asked:
        raise ValueError(f"{where}number is {quoted(trial.number)}, but {num_asked} points were proposed")
    check_choices(f"{where}status", trial.status, typing.get_args(Status))
    if (trial.top1 is None) == (trial.status == "done"):
        raise ValueError(f"{where}top1 is {quoted(trial.top1)}, but the trial is {trial.status}")
    if not all(stage.isdecimal() and len(stage) < 10 for stage in trial.first_keys or ()):
        raise ValueError(
            f"{where}first_keys must have stage numbers as names, got {quoted(list(trial.first_keys or ()))}"
        )
    stages = [end.stage for end in trial.ends]
    if stages != sorted(set(stages)) or not all(0 <= stage < _MOST for stage in stages):
        raise ValueError(f"{where}ends must have ascending stages from 0, got {quoted(stages)}")
    for index, end in enumerate(trial.ends):
        check_choices(f"{where}ends[{index}].how", end.how, typing.get_args(How))
        if not 0 <= end.portion <= 1 or not 0 <= end.seconds < math.inf:
            raise ValueError(f"{where}ends[{index}] has portion {end.portion:g} and {end.seconds:g} seconds")
