"""Order of an epoch for samples that are read in groups, such as row groups: a shuffle with a buffer.

A full shuffle would read a whole group for every sample. Here a process reads each group about once and keeps `buffer`
samples at a time:

    groups, shuffled by (seed, epoch), concatenated        |g7....|g2....|g9....|g4....|g0....|g5.. dropped
    cut into one span per data shard and lane              |shard 0, lane 0 |shard 0, lane 1 | ...
    a span is cut into windows at the groups' boundaries   |window   |window|
    each window is shuffled by sample; step s of a shard takes its samples from lane s modulo LANES

Lanes exist for loader workers: torch's DataLoader gives step s to worker s modulo W. If W divides LANES, a worker meets
only its own lanes, and reads and holds only their windows. The order does not depend on W.

Quality, measured by benchmarks/bench_shuffle.py: mean number of distinct classes in a global batch of 256, for 1000
classes of 1,280 images in groups of 100; a full shuffle has 226.

    order in the files    1 rank    8 ranks    with an eightfold buffer    1 rank    8 ranks
    sorted by class          7.9       45.8                                  43.3      168.1
    random                 226.1      226.2                                 225.8      226.2

Rewrite sets that are sorted by class in random order (`inq-ray parquet` does); then nothing is lost. Sets with fewer
than about `LANES` groups per rank are shuffled little, because each lane has hardly more than one group.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inq_ray.data.seeded import counter_hash

LANES = 16
BUFFER = 8192


class GroupOrder:
    """Samples of a data shard in each global batch of an epoch: a sequence of int64 tensors, from any step.

    A data shard is what one rank reads if there are as many ranks as shards.

    The order is a function of the arguments alone. Construction takes time and memory proportional to the number of
    groups, a step takes time proportional to a window; there is no permutation of all samples. All shards and steps
    together take `steps * batch_size` different samples, and read at most `groups + num_data_shards * LANES` groups.

    Args:
        indices: int64 [n], ascending, the samples to train on.
        groups: int64 [G + 1], ascending: group g has the samples groups[g] to groups[g + 1] - 1 of the whole set.
        batch_size: Samples per global batch, over all ranks.
        data_shard: Index of the shard, 0 to num_data_shards - 1.
        num_data_shards: Number of data shards.
        seed: The run's seed.
        epoch: Epoch, counted over the whole run.
        buffer: Number of samples that the shard shuffles at a time, over its lanes. More shuffles better and takes more
            memory.
    """

    def __init__(
        self,
        indices: Tensor,
        groups: NDArray[np.int64],
        *,
        batch_size: int,
        data_shard: int,
        num_data_shards: int,
        seed: int,
        epoch: int,
        buffer: int = BUFFER,
    ) -> None:
        assert 0 <= data_shard < num_data_shards <= batch_size, (data_shard, num_data_shards, batch_size)
        assert buffer > 0, buffer
        self._num_steps = len(indices) // batch_size
        self._sequence = _Sequence.shuffled(indices.numpy(), groups, seed, epoch)
        self._seed, self._epoch = seed, epoch
        first = data_shard * batch_size // num_data_shards
        self._part = (data_shard + 1) * batch_size // num_data_shards - first
        starts = self._num_steps * first + self._part * _steps_before(self._num_steps)
        window = max(1, buffer // LANES)
        self._cuts = [_windows(starts[lane], starts[lane + 1], self._sequence.ends, window) for lane in range(LANES)]

    def __len__(self) -> int:
        return self._num_steps

    def __getitem__(self, step: int) -> Tensor:
        """Return the samples of this shard in a step: int64 [n], with n as in `rank_slice`."""
        if not 0 <= step < self._num_steps:
            raise IndexError(step)
        turn, lane = divmod(step, LANES)
        cuts = self._cuts[lane]
        start = cuts[0] + turn * self._part
        first = np.searchsorted(cuts, start, side="right") - 1
        last = np.searchsorted(cuts, start + self._part, side="left")
        samples = np.concatenate([self._window(*cuts[place : place + 2]) for place in range(first, last)])
        skipped = start - cuts[first]
        return torch.from_numpy(samples[skipped : skipped + self._part])

    def _window(self, start: int, end: int) -> NDArray[np.int64]:
        """Return the samples of a window, sorted by their random numbers."""
        samples = self._sequence.take(start, end)
        keys = counter_hash("window", self._seed, self._epoch, samples)
        return samples[np.argsort(keys, kind="stable")]


class _Sequence(NamedTuple):
    """The samples to train on, group by group in the order of the epoch, in compact form.

    Attributes:
        indices: int64 [n], ascending.
        ends: int64 [g], position in the sequence where each group ends; ascending to n.
        shifts: int64 [g], offset from a position within the group to its position in `indices`.
    """

    indices: NDArray[np.int64]
    ends: NDArray[np.int64]
    shifts: NDArray[np.int64]

    @classmethod
    def shuffled(cls, indices: NDArray[np.int64], groups: NDArray[np.int64], seed: int, epoch: int) -> "_Sequence":
        """Shuffle the groups that have samples to train on."""
        bounds = np.searchsorted(indices, groups)
        counts = np.diff(bounds)
        order = np.argsort(counter_hash("groups", seed, epoch, np.arange(len(counts))), kind="stable")
        order = order[counts[order] > 0]
        ends = np.cumsum(counts[order])
        return cls(indices, ends, bounds[order] - (ends - counts[order]))

    def take(self, start: int, end: int) -> NDArray[np.int64]:
        """Return the samples at the positions `start` to `end` - 1."""
        places = np.arange(start, end)
        samples: NDArray[np.int64] = self.indices[
            places + self.shifts[np.searchsorted(self.ends, places, side="right")]
        ]
        return samples


def _steps_before(num_steps: int) -> NDArray[np.int64]:
    """Return the number of steps of all lanes before each lane: int64 [LANES + 1]; the last is `num_steps`."""
    lanes = np.arange(LANES + 1)
    return num_steps // LANES * lanes + np.minimum(lanes, num_steps % LANES)


def _windows(start: int, end: int, boundaries: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Cut a span about every `size` positions, at the nearest group boundary.

    Returns:
        int64 [m + 1], ascending from `start` to `end`: the windows' boundaries.
    """
    low, high = np.searchsorted(boundaries, [start, end], side="right")
    inner = boundaries[low:high]
    inner = inner[inner < end]
    targets = np.arange(start + size, end, size)
    if not len(inner) or not len(targets):
        return np.unique(np.array([start, end]))
    after = np.searchsorted(inner, targets)
    above, below = inner[np.minimum(after, len(inner) - 1)], inner[np.maximum(after - 1, 0)]
    nearest = np.where(np.abs(above - targets) < np.abs(targets - below), above, below)
    return np.unique(np.concatenate([[start], nearest, [end]]))


def fitting_workers(num_workers: int) -> int:
    """Return the largest number of loader workers up to `num_workers` that share no lane; 0 stays 0."""
    return next((num for num in range(min(num_workers, LANES), 0, -1) if LANES % num == 0), 0)


def shuffled_groups(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return all samples, group by group, in an order that no epoch uses."""
    num_samples = int(groups[-1])
    return _Sequence.shuffled(np.arange(num_samples), groups, seed, -1).take(0, num_samples)
