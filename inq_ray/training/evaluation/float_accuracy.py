"""Whether the accuracy of a float network can be right: a wrong order of classes or normalization is no error of torch.

Two rules, both by exact binomial tails, so that few images refuse nothing:

- Near chance: top-1 is below 2 / (classes + 1), where the odds are twice those of guessing; or it is below a half, and
  not significantly above guessing (1 / classes; p > 0.01). That is sure if a network that is right half of the time, or
  at those twofold odds if that is more, would do so badly in less than one of 1000 sets of as many images.
- Far below what the weights state: more than 5 points, and not by chance (p < 0.01). That is sure if a network that is
  5 points below would do so badly in less than one of 1000 sets.
"""

import math
from dataclasses import dataclass

from inq_ray.training.evaluation.accuracy import Accuracy

_CHANCE_P = 0.01
_SURE_P = 0.001
_USABLE = 0.5
# Percentage points that other decoders, resize filters and rounding explain several times over.
_STATED_MARGIN = 5.0


class FloatAccuracyError(ValueError):
    """A network is not quantized because its float accuracy cannot be right; nothing is frozen."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """What is wrong with a float accuracy.

    Attributes:
        what: What was measured, and why it cannot be right.
        is_sure: Whether there were enough images to exclude bad luck.
    """

    what: str
    is_sure: bool


def doubt_about(accuracy: Accuracy, *, num_classes: int, stated_top1: float | None = None) -> Doubt | None:
    """Return what is wrong with the accuracy of a float network; None = it is plausible.

    Args:
        accuracy: Accuracy of the network.
        num_classes: Number of classes of the data.
        stated_top1: Top-1 in percent that the weights' publisher states for them; None = not known.
    """
    hits, num = accuracy.num_top1, accuracy.num_samples
    measured = f"float top-1 is {accuracy.top1:.2f} % on {num:,} images"
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
        what=f"{measured}, and the weights state {stated_top1:.2f} %",
        is_sure=_at_most(hits, num, (stated_top1 - _STATED_MARGIN) / 100) < _SURE_P,
    )


def _at_most(hits: int, num: int, p: float) -> float:
    """Return the probability of so many hits or fewer in `num` tries; 1 where they are at least the mean."""
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
    """Return the probability of so many hits or more in `num` tries; 1 where they are at most the mean."""
    return _at_most(num - hits, num, 1 - p) if p < 1 else 1.0
