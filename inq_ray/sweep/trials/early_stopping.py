"""Early stopping of trials whose stages have different portions.

Accuracies are compared at the same accumulated portion. A trial's accuracy is known at its stages' ends, and
interpolated linearly between them, so [.5 .75 1] and [.3 .6 1] are compared at .5 by the first one's accuracy at .5 and
the second one's between .3 and .6, as soon as it has reached .6. Portion 0 is the float network. Only trials with the
same number of bits are compared.
"""

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence

# (portion, top-1 in percent) of the float network and each stage's end, in ascending order.
Curve = Sequence[tuple[float, float]]

# Beyond this portion a trial is nearly finished.
_LAST_RUNG = 0.95
# Number of other trials that must have reached a portion before the median is used.
_LEAST_OTHERS = 3


def accuracy_at(curve: Curve, portion: float) -> float | None:
    """Return a trial's accuracy at a portion by linear interpolation; None if it has not reached it.

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
    """Return the portions at which trials are compared: 1/reduction, 1/reduction^2, ... of the weights are live there.

    Args:
        reduction: Reduction factor, above 1.
        grace_portion: Smallest portion.
    """
    assert reduction > 1, reduction
    found = []
    live = 1 / reduction
    while 1 - live <= _LAST_RUNG:
        found.append(round(1 - live, 9))
        live /= reduction
    return tuple(portion for portion in found if portion >= grace_portion)


def stays(value: float, values: Sequence[float], reduction: float) -> bool:
    """Return whether a trial is among the best 1/reduction of those that have reached a rung, rounded up.

    Args:
        value: Its accuracy there.
        values: Accuracies of all trials there, including its own.
        reduction: Reduction factor, above 1.
    """
    best = sorted(values, reverse=True)[: math.ceil(len(values) / reduction)]
    return value >= best[-1]


class Rungs:
    """ASHA over portions: at each rung the best 1/reduction so far continue.

    A result that trials share counts once, for all of them.
    """

    def __init__(self, reduction: float, grace_portion: float) -> None:
        self._reduction = reduction
        self._rungs = rungs(reduction, grace_portion)
        self._values: dict[tuple[Hashable, float], dict[str, float]] = {}

    def goes_on(self, key: str, bits: Hashable, curve: Curve) -> bool:
        """Return whether a trial continues after the last stage of its curve.

        Args:
            key: Key of that stage's end, the same for trials that share it.
            bits: Bits of the trial, of all its layers.
            curve: Curve up to there.
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
    """Return whether a trial's accuracy is below the median of the others at the portion that it has reached.

    Args:
        curve: Curve of the trial.
        others: Curves by name of the other trials with the same bits; those that have not come as far do not count.
        grace_portion: Portion before which the result is False.
    """
    portion, value = curve[-1]
    if portion < grace_portion:
        return False
    values = [accuracy for other in others.values() if (accuracy := accuracy_at(other, portion)) is not None]
    return len(values) >= _LEAST_OTHERS and value < statistics.median(values)
