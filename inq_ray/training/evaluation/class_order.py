"""Check of the order of classes: a network that was trained with another order makes systematic mistakes.

If at least two thirds of a class's images are predicted as one other class, the two may be exchanged. The
order is wrong if this holds for two or more classes, each with a class of its own, and if exchanging them would raise
top-1 by more than 5 points. A few pairs of similar classes do not.
"""

from collections import Counter

import torch
from torch import Tensor

_MAJORITY = 2 / 3
# Fewest images of a class for its majority to count.
_LEAST_IMAGES = 4
# Smallest gain in top-1, as a fraction of all images.
_LEAST_GAIN = 0.05
# With more classes the matrix takes too much memory.
MOST_CLASSES = 4096


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the number of images of each class that are predicted as each class: int64 [classes, classes], by label.

    Args:
        logits: float [n, classes].
        labels: int64 [n].
    """
    num_classes = logits.shape[1]
    pairs = labels * num_classes + logits.argmax(1)
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def renamed_classes(counts: Tensor) -> tuple[tuple[int, int], ...]:
    """Return the classes that are in another order than the network's.

    Args:
        counts: Result of :func:`confusion` over all images.

    Returns:
        Pairs of label and predicted class; empty if the order is right, or too few predictions are regular.
    """
    sizes = counts.sum(1)
    most, predicted = counts.max(1)
    is_known = (sizes >= _LEAST_IMAGES) & (most >= _MAJORITY * sizes)
    pairs = [(label, int(predicted[label])) for label in is_known.nonzero().flatten().tolist()]
    claims = Counter(other for _, other in pairs)
    moved = tuple((label, other) for label, other in pairs if label != other and claims[other] == 1)
    gain = sum(int(counts[label, other] - counts[label, label]) for label, other in moved)
    return moved if len(moved) > 1 and gain > _LEAST_GAIN * int(sizes.sum()) else ()
