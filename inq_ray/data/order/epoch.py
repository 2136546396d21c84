"""Order of samples and their assignment to ranks: pure functions, so that a run can continue from any step."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inq_ray.data.order.groups import GroupOrder, shuffled_groups
from inq_ray.data.seeded import counter_hash


def epoch_batches(
    groups: NDArray[np.int64] | None,
    indices: Tensor,
    *,
    batch_size: int,
    rank: int,
    world_size: int,
    seed: int,
    epoch: int,
    buffer: int,
    num_data_shards: int | None = None,
) -> Callable[[int], Tensor]:
    """Return a function from a step of an epoch to a rank's part of that global batch, int64 [n].

    With groups, a global batch consists of the parts of data shards: a shard is what a rank would read if there were as
    many ranks as shards. A rank takes its slice of the concatenated parts, so that global batches do not depend on the
    number of ranks. With as many ranks as shards each reads one shard; with fewer, a rank reads and holds several; with
    more, some ranks read the same groups.

    `groups` are the boundaries of samples that are read together, int64 [G + 1]; None = any order is fast. The other
    arguments are those of :func:`inq_ray.data.loader.train_requests`.
    """
    if groups is None:
        shuffled = indices[epoch_order(len(indices), seed, epoch)]
        return lambda step: rank_slice(shuffled[step * batch_size : (step + 1) * batch_size], rank, world_size)
    num_data_shards = world_size if num_data_shards is None else num_data_shards
    parts = [
        (
            GroupOrder(
                indices,
                groups,
                batch_size=batch_size,
                data_shard=data_shard,
                num_data_shards=num_data_shards,
                seed=seed,
                epoch=epoch,
                buffer=buffer,
            ),
            part,
        )
        for data_shard, part in _parts_of_shards(batch_size, rank, world_size, num_data_shards).items()
    ]
    return lambda step: torch.cat([order[step][part] for order, part in parts])


def _parts_of_shards(batch_size: int, rank: int, world_size: int, num_data_shards: int) -> dict[int, slice]:
    """Return the data shards that a rank reads for a global batch, and its slice of each shard's part."""
    assert 0 <= rank < world_size <= batch_size, (rank, world_size, batch_size)
    first, last = rank * batch_size // world_size, (rank + 1) * batch_size // world_size
    parts = {}
    for data_shard in range(num_data_shards):
        start, end = data_shard * batch_size // num_data_shards, (data_shard + 1) * batch_size // num_data_shards
        if max(first, start) < min(last, end):
            parts[data_shard] = slice(max(first, start) - start, min(last, end) - start)
    return parts


def epoch_order(num_samples: int, seed: int, epoch: int) -> Tensor:
    """Return the order of an epoch: int64 [num_samples], a permutation determined by (seed, epoch)."""
    return _shuffled("order", num_samples, seed, epoch)


def holdout(num_train: int, count: int, seed: int, groups: NDArray[np.int64] | None = None) -> tuple[Tensor, Tensor]:
    """Split training samples in two, so that choices can be made without the test set.

    Args:
        num_train: Number of training samples.
        count: Number of samples to hold out.
        seed: Determines which.
        groups: Boundaries of samples that are read together, int64 [G + 1]: whole groups (and a part of one) are held
            out,
            so that reading one half reads little of the other. None = any order is fast.

    Returns:
        Kept indices, int64 [num_train - count], and held-out indices, int64 [count]; both ascending.

    Raises:
        ValueError: `count` is negative, or nothing is left to train on.
    """
    if not 0 <= count < num_train:
        raise ValueError(f"cannot hold out {count} of {num_train} training samples; allowed: 0 to {num_train - 1}")
    order = _shuffled("holdout", num_train, seed, 0).numpy() if groups is None else shuffled_groups(groups, seed)
    held = np.sort(order[:count])
    return torch.from_numpy(np.delete(np.arange(num_train), held)), torch.from_numpy(held)


def rank_slice(indices: Tensor, rank: int, world_size: int) -> Tensor:
    """Return a rank's part of a global batch: contiguous and in order; the parts' sizes differ by at most one.

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
    """Sort the samples by their random numbers, stably in case two are equal."""
    keys = counter_hash(purpose, seed, epoch, np.arange(num_samples))
    return torch.from_numpy(np.argsort(keys, kind="stable"))
