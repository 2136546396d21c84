"""Counter-based random numbers: each is a hash of purpose, seed, epoch and sample, and nothing else.

No generator state has to be saved, replayed or synchronized between ranks, and the numbers do not depend on versions of
torch and numpy, on machines or on the composition of batches.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_STEPS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def counter_hash(purpose: str, seed: int, epoch: int, samples: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return 64 random bits per sample: SplitMix64 (Steele et al. 2014) at the sample's position in the stream.

    Args:
        purpose: Name of the use ("order", "crop"), so that different uses are independent.
        seed: Any integer.
        epoch: Any integer.
        samples: int64 [n], not negative.

    Returns:
        uint64 [n], a function of (purpose, seed, epoch, sample) alone.
    """
    state = np.uint64(_key(purpose, seed, epoch)) + (samples.astype(np.uint64) + np.uint64(1)) * np.uint64(_GAMMA)
    return _mix(state)


@lru_cache(maxsize=64)
def _key(purpose: str, seed: int, epoch: int) -> int:
    """Return the start of the stream of numbers, which many samples share."""
    key = 0
    for value in (*purpose.encode(), seed, epoch):
        key = _mix_integer((key ^ (value & _MASK)) + _GAMMA)
    return key


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply SplitMix64's output function to arrays; products wrap around at 2^64."""
    for shift, factor in _STEPS:
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    return state ^ (state >> np.uint64(31))


def _mix_integer(state: int) -> int:
    """Apply SplitMix64's output function to one Python integer."""
    state &= _MASK
    for shift, factor in _STEPS:
        state = ((state ^ (state >> shift)) * factor) & _MASK
    return state ^ (state >> 31)


@contextmanager
def seeded(purpose: str, seed: int, epoch: int, sample: int) -> Iterator[None]:
    """Seed torch's CPU generator for the block, and restore its state afterwards.

    Args:
        purpose: Name of the use, as for `counter_hash`.
        seed: The run's seed.
        epoch: Epoch, counted over the whole run.
        sample: Index of the sample or step, not negative.
    """
    number = int(counter_hash(purpose, seed, epoch, np.array([sample]))[0])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(number)
        yield
