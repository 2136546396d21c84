"""Which sample comes when, and on which rank: pure functions, so that a run can go on from any step."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inq_ray.data.order.groups import GroupOrder
from inq_ray.data.seeded import counter_hash


class EpochBatches(Protocol):
    """A rank's part of every global batch of an epoch."""

    def __len__(self) -> int:
        """Return the number of global batches."""
        ...

    def __getitem__(self, step: int) -> Tensor:
        """Return the samples of a step: int64 [n]."""
        ...


@dataclass(frozen=True)
class ShuffledBatches:
    """Global batches cut from one permutation of all samples; see :class:`EpochBatches`.

    Attributes:
        order: int64 [n], the samples in the order of the epoch.
        batch_size: Samples a global batch.
        rank: 0 to world_size - 1.
        world_size: Number of ranks.
    """

    order: Tensor
    batch_size: int
    rank: int
    world_size: int

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __getitem__(self, step: int) -> Tensor:
        batch = self.order[step * self.batch_size : (step + 1) * self.batch_size]
        return rank_slice(batch, self.rank, self.world_size)


@dataclass(frozen=True)
class GroupedBatches:
    """Global batches that are put together of the parts of some spans; see :class:`EpochBatches`.

    A span is what a rank would read were there as many ranks as spans. A rank takes its slice of the spans' parts, laid
    end to end, so that a global batch is the same at any number of ranks. With as many ranks as spans each reads one;
    with fewer several, and holds what several would hold; with more, some read the same groups.

    Attributes:
        spans: Those of which the rank takes something.
        slices: What it takes of each one's part of a batch.
    """

    spans: tuple[GroupOrder, ...]
    slices: tuple[slice, ...]

    def __len__(self) -> int:
        return len(self.spans[0])

    def __getitem__(self, step: int) -> Tensor:
        return torch.cat([span[step][part] for span, part in zip(self.spans, self.slices, strict=True)])


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
    num_spans: int | None = None,
) -> EpochBatches:
    """Return a rank's part of the batches of an epoch.

    Args:
        groups: Boundaries of samples that are read together, int64 [G + 1]; None = all in any order.
        indices: int64 [n], rising, the samples to order.
        batch_size: Samples a global batch, over all ranks.
        rank: 0 to world_size - 1.
        world_size: Number of ranks.
        seed: Of the run.
        epoch: Counted over the whole run.
        buffer: Samples among which a rank shuffles where there are groups.
        num_spans: Ranks for which the order of groups is laid out, the same for a whole run; None = `world_size`.
    """
    if groups is None:
        return ShuffledBatches(indices[epoch_order(len(indices), seed, epoch)], batch_size, rank, world_size)
    num_spans = world_size if num_spans is None else num_spans
    shares = _shares_of_spans(batch_size, rank, world_size, num_spans)
    spans = tuple(
        GroupOrder(
            indices,
            groups,
            batch_size=batch_size,
            rank=span,
            world_size=num_spans,
            seed=seed,
            epoch=epoch,
            buffer=buffer,
        )
        for span in shares
    )
    return GroupedBatches(spans, tuple(shares.values()))


def _shares_of_spans(batch_size: int, rank: int, world_size: int, num_spans: int) -> dict[int, slice]:
    """Return which spans' parts of a global batch a rank takes something of, and what of each."""
    assert 0 <= rank < world_size <= batch_size, (rank, world_size, batch_size)
    first, last = rank * batch_size // world_size, (rank + 1) * batch_size // world_size
    shares = {}
    for span in range(num_spans):
        start, end = span * batch_size // num_spans, (span + 1) * batch_size // num_spans
        if max(first, start) < min(last, end):
            shares[span] = slice(max(first, start) - start, min(last, end) - start)
    return shares


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
