"""torch's own generator, for transforms of torchvision that ask it and cannot be given another."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from inq_ray.data.counter_hash import counter_hash


@contextmanager
def seeded(purpose: str, seed: int, epoch: int, sample: int) -> Iterator[None]:
    """Within the block torch's CPU generator is at the start of a sequence of its own; after it, where it was before.

    Args:
        purpose: Who asks, as for `counter_hash`.
        seed: Of the run.
        epoch: Counted over the whole run.
        sample: Number of what is drawn for, not negative.
    """
    number = int(counter_hash(purpose, seed, epoch, np.array([sample]))[0])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(number)
        yield
