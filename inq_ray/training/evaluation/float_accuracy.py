"""Plausibility of a float network's accuracy, because torch raises no error for wrong class order or normalization.

Three rules, the first two by exact binomial tails, so that small sets refuse nothing:

- Near chance: top-1 is below 2 / (classes + 1), twice the odds of guessing; or it is below 50 %, and not significantly
  above guessing (1 / classes; p > 0.01). The result is sure if a network with a top-1 of 50 %, or with twice the odds
  of guessing if that is more, would be this bad in fewer than one of 1000 sets of this size.
- Far below the published accuracy of the weights: by more than 5 points, significantly (p < 0.01). The result is sure
  if a network 5 points below it would be this bad in fewer than one of 1000 sets.
- Classes in another order, see :mod:`inq_ray.training.evaluation.class_order`. The result is always sure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from inq_ray.files.shown import shown
from inq_ray.training.evaluation.accuracy import Accuracy

_CHANCE_P = 0.01
_SURE_P = 0.001
_USABLE = 0.5
# Percentage points: several times the effect of other decoders, resize filters and rounding.
_STATED_MARGIN = 5.0
_NUM_NAMED = 2


class FloatAccuracyError(ValueError):
    """A network is not quantized because its float accuracy cannot be right; nothing is frozen."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """What is wrong with a float accuracy.

    Attributes:
        what: The measured accuracy, and why it is implausible.
        is_sure: Whether there were enough images to exclude bad luck.
        is_order: Whether the order of the classes is what is wrong.
    """

    what: str
    is_sure: bool
    is_order: bool = False


def doubt_about(accuracy: Accuracy, *, class_names: Sequence[str], stated_top1: float | None = None) -> Doubt | None:
    """Return what is wrong with the accuracy of a float network; None = it is plausible.

    Args:
        accuracy: Accuracy of the network.
        class_names: Names of the classes of the data.
        stated_top1: Published top-1 of the weights, in percent; None = unknown.
    """
    hits, num, num_classes = accuracy.num_top1, accuracy.num_samples, len(class_names)
    measured = f"float top-1 is {accuracy.top1:.2f} % on {num:,} images"
    if accuracy.num_top1_renamed is not None:
        better = f"{100 * accuracy.num_top1_renamed / num:.2f} % with classes in another order"
        return Doubt(what=f"{measured}, but {better} ({_renamed(accuracy, class_names)})", is_sure=True, is_order=True)
    doubled = 2 / (num_classes + 1)
    is_like_guessing = hits < _USABLE * num and _at_least(hits, num, 1 / num_classes) > _CHANCE_P
    is_near = hits < doubled * num or is_like_guessing
    if num_classes > 1 and is_near:
        is_sure = _at_most(hits, num, max(_USABLE, doubled)) < _SURE_P
        few = "" if is_sure else "; too few images to be sure"
        chance = f"{100 / num_classes:.2g} % of {num_classes:,} classes"
        return Doubt(what=f"{measured}, near chance ({chance}{few})", is_sure=is_sure)
    if stated_top1 is None or accuracy.top1 > stated_top1 - _STATED_MARGIN:
        return None
    if _at_most(hits, num, stated_top1 / 100) > _CHANCE_P:
        return None
    return Doubt(
        what=f"{measured}, but {stated_top1:.2f} % is published for the weights",
        is_sure=_at_most(hits, num, (stated_top1 - _STATED_MARGIN) / 100) < _SURE_P,
    )


def _renamed(accuracy: Accuracy, class_names: Sequence[str]) -> str:
    """Return which classes are predicted as which, the first ones by name."""
    pairs = [(shown(class_names[label], 20), shown(class_names[other], 20)) for label, other in accuracy.renamed]
    words = [f"{label} is predicted as {other}" for label, other in pairs[:_NUM_NAMED]]
    return ", ".join(words) + ", ..." * (len(pairs) > _NUM_NAMED)


def _at_most(hits: int, num: int, p: float) -> float:
    """Return the probability of this many hits or fewer in `num` tries; 1 if they are at least the mean."""
    if hits >= num * p:
        return 1.0
    log_odds = math.log(p) - math.log1p(-p)
    log_term = math.lgamma(num + 1) - math.lgamma(hits + 1) - math.lgamma(num - hits + 1)
    term = math.exp(log_term + hits * math.log(p) + (num - hits) * math.log1p(-p))
    total = 0.0
    for each in range(hits, -1, -1):  # below the mean each term is smaller than the one before
        total += term
        if term < 1e-12 * total:
            break
        term *= each / ((num - each + 1) * math.exp(log_odds)) if each else 0.0
    return total


def _at_least(hits: int, num: int, p: float) -> float:
    """Return the probability of this many hits or more in `num` tries; 1 if they are at most the mean."""
    return _at_most(num - hits, num, 1 - p) if p < 1 else 1.0
