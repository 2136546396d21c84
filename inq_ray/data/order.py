"""Which sample comes when, and on which rank: pure functions, so that a run can go on from any step."""

import numpy as np
import torch
from torch import Tensor

from inq_ray.data.counter_hash import counter_hash


def epoch_order(num_samples: int, seed: int, epoch: int) -> Tensor:
    """Return the order of an epoch: int64 [num_samples], a permutation that (seed, epoch) decide."""
    return _shuffled("order", num_samples, seed, epoch)


def holdout(num_train: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split training samples in two, so that choices can be made without the test set.

    Args:
        num_train: Number of training samples.
        count: How many to hold out.
        seed: Decides which.

    Returns:
        Kept indices, int64 [num_train - count], and held-out indices, int64 [count]; both rise.

    Raises:
        ValueError: `count` is negative, or leaves nothing to train on.
    """
    if not 0 <= count < num_train:
        raise ValueError(f"cannot hold out {count} of {num_train} training samples; allowed are 0 to {num_train - 1}")
    shuffled = _shuffled("holdout", num_train, seed, 0)
    return shuffled[count:].sort().values, shuffled[:count].sort().values


def rank_slice(indices: Tensor, rank: int, world_size: int) -> Tensor:
    """Return a rank's part of a global batch: contiguous, in order; the parts' sizes differ by at most one.

    Args:
        indices: [n], the global batch.
        rank: 0 to world_size - 1.
        world_size: Number of ranks.

    Returns:
        A view of `indices`.
    """
    assert 0 <= rank < world_size, (rank, world_size)
    num = len(indices)
    return indices[rank * num // world_size : (rank + 1) * num // world_size]


def _shuffled(purpose: str, num_samples: int, seed: int, epoch: int) -> Tensor:
    """Sort the samples by their random numbers; the stable sort settles what is all but impossible, equal ones."""
    keys = counter_hash(purpose, seed, epoch, np.arange(num_samples))
    return torch.from_numpy(np.argsort(keys, kind="stable"))
