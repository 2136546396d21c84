"""Results of a sweep: the best trial, the effect of each parameter, the Pareto front, the savings of reuse."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from inq_ray.sweep.trials.trial import Trial, in_words, short


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials in order: finished ones by accuracy, then by fewer bits, then the earlier one.

    Stopped ones follow, those that came farther first; then the rest.
    """

    def order(trial: Trial) -> tuple[float, ...]:
        if trial.top1 is not None:
            return (0, -trial.top1, trial.bits, trial.number)
        portion = max((end.portion for end in trial.ends), default=0.0)
        top1 = trial.ends[-1].top1 if trial.ends else 0.0
        return (1 if trial.status == "stopped" else 2, -portion, -top1, trial.number)

    return sorted(trials, key=order)


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the highest accuracy; None if none finished."""
    first = next(iter(ranked(trials)), None)
    return first if first is not None and first.top1 is not None else None


def _bits(trial: Trial) -> float:
    return trial.bits


def pareto(trials: Sequence[Trial], cost: Callable[[Trial], float] = _bits) -> list[Trial]:
    """Return the finished trials that no other beats in accuracy or cost without losing in the other.

    The lowest cost comes first; of equal trials only the earlier one is included.

    Args:
        trials: The trials.
        cost: Cost of a trial; by default its bits per weight.
    """
    done = sorted(
        (trial for trial in trials if trial.top1 is not None), key=lambda t: (cost(t), -(t.top1 or 0.0), t.number)
    )
    front: list[Trial] = []
    for trial in done:
        assert trial.top1 is not None
        if not front or trial.top1 > (front[-1].top1 or 0.0):
            front.append(trial)
    return front


class Effect(NamedTuple):
    """Effect of a parameter's value.

    Attributes:
        parameter: Short name, such as "lr".
        value: Value in words.
        num_trials: Number of finished trials with it.
        mean: Mean of their accuracy, in percent.
        best: Best of their accuracies, in percent.
    """

    parameter: str
    value: str
    num_trials: int
    mean: float
    best: float


# Number of groups for values drawn from a range.
_GROUPS = 3


def effects(trials: Sequence[Trial]) -> list[Effect]:
    """Return mean and best accuracy for each value of each parameter with several values.

    Other parameters differ too, so this is a mean over the trials, not the effect of the parameter alone. More than six
    numbers are grouped into three ranges with equal numbers of trials. If every trial has another value, see the
    ranking.
    """
    done = [trial for trial in trials if trial.top1 is not None]
    found = []
    for name in done[0].point if done else ():
        of_value: dict[str, list[float]] = {}
        distinct = {trial.point[name] for trial in done}
        is_range = len(distinct) > 2 * _GROUPS and all(isinstance(value, float) for value in distinct)
        values = sorted(distinct) if is_range else ()  # others may not be sortable: None and a number
        for trial in done:
            words = _group(values, trial.point[name]) if is_range else in_words(trial.point[name])
            of_value.setdefault(words, []).append(trial.top1 or 0.0)
        if 1 < len(of_value) < len(done):
            found += [
                Effect(short(name), value, len(top1s), statistics.fmean(top1s), max(top1s))
                for value, top1s in sorted(of_value.items(), key=lambda item: -statistics.fmean(item[1]))
            ]
    return found


def _group(values: Sequence[float], value: float) -> str:
    index = values.index(value) * _GROUPS // len(values)
    inside = [each for number, each in enumerate(values) if number * _GROUPS // len(values) == index]
    return f"{inside[0]:.3g} to {inside[-1]:.3g}"


@dataclass(frozen=True, kw_only=True)
class Savings:
    """Trained and reused stages of trials.

    Attributes:
        num_trained: Number of trained stages.
        num_reused: Number of stages that were not trained, because another trial had trained them.
        num_distinct: Number of distinct passed stages, the minimum that had to be trained.
        trained_seconds: Time of training and validation in trained stages.
        saved_seconds: Time that reused stages would have taken.
    """

    num_trained: int
    num_reused: int
    num_distinct: int
    trained_seconds: float
    saved_seconds: float

    @property
    def ideal(self) -> float:
        """Smallest possible fraction of trained stages among all passed ones."""
        return self.num_distinct / max(1, self.num_trained + self.num_reused)


def savings(trials: Sequence[Trial]) -> Savings:
    """Return the sums over trials."""
    distinct = {trial.keys.get(end.stage, f"{trial.name} {end.stage}")
                for trial in trials for end in trial.ends if end.how != "given"}  # fmt: skip
    return Savings(
        num_trained=sum(trial.count("trained") for trial in trials),
        num_reused=sum(trial.count("reused") for trial in trials),
        num_distinct=len(distinct),
        trained_seconds=sum(trial.seconds("trained") for trial in trials),
        saved_seconds=sum(trial.seconds("reused") for trial in trials),
    )
