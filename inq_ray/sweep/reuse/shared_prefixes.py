"""Shared prefixes of trials, and the choice of the next trial so that nothing shared is trained twice.

A trial has the keys of its stage ends, first to last, except ends that no other trial could use. Two trials share the
stages with equal keys, which are a prefix of both.
"""

from collections import Counter
from collections.abc import Collection, Sequence

Keys = tuple[str, ...]


def deepest(keys: Sequence[str], stored: Collection[str]) -> int:
    """Return the number of a trial's stages that need no training: up to its last stored end."""
    return max((index for index, key in enumerate(keys, start=1) if key in stored), default=0)


def missing(keys: Keys, stored: Collection[str]) -> Keys:
    """Return the keys of the stages that a trial has to train and others could use."""
    return keys[deepest(keys, stored) :]


def is_ready(keys: Keys, stored: Collection[str], claimed: Collection[str]) -> bool:
    """Return whether a trial can start: no other trial is training what it has to train first.

    Args:
        keys: Keys of the trial.
        stored: Keys of the existing stage ends.
        claimed: Keys of the stages that running trials have to train.
    """
    left = missing(keys, stored)
    return not left or left[0] not in claimed


def choose(waiting: Sequence[Keys], stored: Collection[str], claimed: Collection[str]) -> int | None:
    """Return the trial to start next.

    Among those that can start, this is the one whose stages most others wait for, so that shared stages are trained
    early; of equal ones the first.

    Args:
        waiting: Keys of each waiting trial.
        stored: As in :func:`is_ready`.
        claimed: As in :func:`is_ready`.

    Returns:
        Its index in ``waiting``; None if none can start now.
    """
    counts = Counter(key for keys in waiting for key in keys)
    ready = [index for index, keys in enumerate(waiting) if is_ready(keys, stored, claimed)]
    if not ready:
        return None
    return max(ready, key=lambda index: (sum(counts[key] - 1 for key in missing(waiting[index], stored)), -index))


def needed(trials: Sequence[Keys], stored: Collection[str]) -> set[str]:
    """Return the stored keys that a trial would start from; the others need not be kept."""
    return {keys[deepest(keys, stored) - 1] for keys in trials if deepest(keys, stored)}
