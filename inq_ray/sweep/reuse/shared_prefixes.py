"""The tree of what trials share, and which trial comes next so that nothing in it is trained twice.

A trial names the keys of the stage ends that it passes, first to last: those that another could pass as well. Two
trials share the stages of which they have the same keys, a prefix of both.
"""

from collections import Counter
from collections.abc import Collection, Sequence

Keys = tuple[str, ...]


def deepest(keys: Sequence[str], stored: Collection[str]) -> int:
    """How many of a trial's stages need not be trained: up to the last of its ends that is stored."""
    return max((index for index, key in enumerate(keys, start=1) if key in stored), default=0)


def missing(keys: Keys, stored: Collection[str]) -> Keys:
    """The keys of the stages that a trial has to train, of those that others could use."""
    return keys[deepest(keys, stored) :]


def is_ready(keys: Keys, stored: Collection[str], claimed: Collection[str]) -> bool:
    """Whether a trial can start: what it has to train first is not being trained by another one.

    Args:
        keys: of the trial.
        stored: keys of the stage ends that exist.
        claimed: keys of the stages that running trials have to train.
    """
    left = missing(keys, stored)
    return not left or left[0] not in claimed


def choose(waiting: Sequence[Keys], stored: Collection[str], claimed: Collection[str]) -> int | None:
    """The trial that should start next.

    Of those that can start it is the one whose stages most others wait for, so that what is shared is done early; of
    equal ones the first.

    Args:
        waiting: keys of each trial that waits.
        stored: as in :func:`is_ready`.
        claimed: as in :func:`is_ready`.

    Returns:
        Its index in ``waiting``; None where none can start now.
    """
    counts = Counter(key for keys in waiting for key in keys)
    ready = [index for index, keys in enumerate(waiting) if is_ready(keys, stored, claimed)]
    if not ready:
        return None
    return max(ready, key=lambda index: (sum(counts[key] - 1 for key in missing(waiting[index], stored)), -index))


def needed(trials: Sequence[Keys], stored: Collection[str]) -> set[str]:
    """The stored keys from which one of the trials would start: the others need not be kept."""
    return {keys[deepest(keys, stored) - 1] for keys in trials if deepest(keys, stored)}
