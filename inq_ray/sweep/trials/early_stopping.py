"""Stopping trials early, although their stages lie at different portions.

What compares is accuracy at the same accumulated portion. A trial's accuracy is known at its stages' ends; between two
of them it is taken to run straight from one to the other, so [.5 .75 1] and [.3 .6 1] compare at .5 by the first one's
accuracy at .5 and by the second one's between .3 and .6, as soon as it has reached .6. Portion 0 is the float network.
Only trials of the same number of bits compare.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

# (portion, top-1 in percent) of the float network and of each stage's end, portions rising.
Curve = Sequence[tuple[float, float]]

# Beyond this portion a trial is all but done.
_LAST_RUNG = 0.95
# Trials that must have come as far before the median says anything.
_LEAST_OTHERS = 3


def accuracy_at(curve: Curve, portion: float) -> float | None:
    """A trial's accuracy at a portion, on a straight line between the two known ones; None where it is not there yet.

    Before its first known portion it is that of the first.
    """
    before: tuple[float, float] | None = None
    for after in curve:
        if after[0] >= portion:
            if before is None or after[0] == portion:
                return after[1]
            share = (portion - before[0]) / (after[0] - before[0])
            return before[1] + share * (after[1] - before[1])
        before = after
    return None


def rungs(reduction: float, grace_portion: float) -> tuple[float, ...]:
    """Portions at which trials are compared: those that leave 1/reduction, 1/reduction^2, ... of the weights live.

    Args:
        reduction: above 1.
        grace_portion: there are none before this one.
    """
    assert reduction > 1, reduction
    found = []
    live = 1 / reduction
    while 1 - live <= _LAST_RUNG:
        found.append(round(1 - live, 9))
        live /= reduction
    return tuple(portion for portion in found if portion >= grace_portion)


def stays(value: float, values: Sequence[float], reduction: float) -> bool:
    """Whether a trial is among the best 1/reduction of those that have come to a rung, itself counted, rounded up.

    Args:
        value: its accuracy there.
        values: of all, its own among them.
        reduction: above 1.
    """
    best = sorted(values, reverse=True)[: math.ceil(len(values) / reduction)]
    return value >= best[-1]


class Rungs:
    """ASHA over portions: at each rung those go on that are among the best 1/reduction so far.

    What two trials share is one result there, whoever brings it.
    """

    def __init__(self, reduction: float, grace_portion: float) -> None:
        self._reduction = reduction
        self._rungs = rungs(reduction, grace_portion)
        self._values: dict[tuple[int, float], dict[str, float]] = {}

    def goes_on(self, key: str, bits: int, curve: Curve) -> bool:
        """Whether a trial goes on after the last stage of its curve.

        Args:
            key: of that stage's end; trials that share it give the same.
            bits: of the trial.
            curve: up to there.
        """
        reached, before = curve[-1][0], curve[-2][0] if len(curve) > 1 else 0.0
        result = True
        for rung in self._rungs:
            if before < rung <= reached:
                value = accuracy_at(curve, rung)
                assert value is not None
                values = self._values.setdefault((bits, rung), {})
                values[key] = value
                result = result and stays(value, list(values.values()), self._reduction)
        return result


def is_below_median(curve: Curve, others: Mapping[str, Curve], grace_portion: float) -> bool:
    """Whether a trial's accuracy is below the median of the others' at the portion that it has reached.

    Args:
        curve: of the trial.
        others: of the other trials of as many bits, by name; those that have not come as far do not count.
        grace_portion: before it no trial is.
    """
    portion, value = curve[-1]
    if portion < grace_portion:
        return False
    values = [accuracy for other in others.values() if (accuracy := accuracy_at(other, portion)) is not None]
    return len(values) >= _LEAST_OTHERS and value < statistics.median(values)
