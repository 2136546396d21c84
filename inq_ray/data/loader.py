"""A rank's batches of an epoch, from any step on, as torch DataLoaders.

The datasets' items are whole batches, made by one vectorized fetch from memory that all processes of a node share:
`num_workers=0` is right, and starting at a late step costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from inq_ray.data.image_set import ImageSet
from inq_ray.data.order import epoch_order, rank_slice
from inq_ray.data.transforms import Augmentation


class Batch(NamedTuple):
    """One rank's part of a batch.

    Attributes:
        images: uint8 [n, C, H, W], not normalized.
        labels: int64 [n].
        step: Number of the global batch within the epoch.
    """

    images: Tensor
    labels: Tensor
    step: int


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Return the number of whole global batches in an epoch; the incomplete last one is dropped.

    Raises:
        ValueError: There is not one.
    """
    if not 1 <= batch_size <= num_samples:
        raise ValueError(f"{batch_size=} (global) must be from 1 to the number of training samples, {num_samples}")
    return num_samples // batch_size


def train_loader(
    images: ImageSet,
    indices: Tensor,
    *,
    batch_size: int,
    rank: int,
    world_size: int,
    seed: int,
    augmentation: Augmentation,
    epoch: int,
    start_step: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Return this rank's part of every global batch of an epoch, from `start_step` on.

    All ranks together see, at any world size, the same global batches with the same augmentation: a function of
    (seed, epoch) alone.

    Args:
        images: The set that `indices` points into.
        indices: int64 [n], the samples to train on.
        batch_size: Samples a global batch, over all ranks.
        rank: This process, 0 to world_size - 1.
        world_size: Number of processes.
        seed: Of the run.
        augmentation: What may happen to an image.
        epoch: Counted over the whole run.
        start_step: First global batch; those before it are not touched.
        pin_memory: Whether batches come in page-locked memory, for copies to a GPU.

    Returns:
        A loader of `steps_per_epoch(n, batch_size) - start_step` batches.

    Raises:
        ValueError: There are fewer samples than a global batch has, or fewer in it than ranks.
    """
    num_steps = steps_per_epoch(len(indices), batch_size)
    if batch_size < world_size:
        raise ValueError(f"{batch_size=} (global) gives some of {world_size} ranks nothing; use at least {world_size}")
    assert 0 <= start_step <= num_steps, (start_step, num_steps)
    order = indices[epoch_order(len(indices), seed, epoch)]
    batches = torch.split(order[: num_steps * batch_size], batch_size)
    parts = [rank_slice(batch, rank, world_size) for batch in batches]
    dataset = _Batches(images, parts, augmentation, seed, epoch)
    return _loader(dataset, range(start_step, num_steps), pin_memory=pin_memory)


def eval_loader(
    images: ImageSet,
    indices: Tensor,
    *,
    rank: int,
    world_size: int,
    batch_size: int = 250,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Return this rank's share of fixed consecutive batches: batch i goes to rank i modulo world_size.

    A batch has the same samples at any world size, so that sums over batches do not depend on it, and every sample is
    in exactly one batch of one rank. A rank may have none.

    Args:
        images: The set that `indices` points into.
        indices: int64 [n], the samples to evaluate, in this order.
        rank: This process, 0 to world_size - 1.
        world_size: Number of processes.
        batch_size: Samples a batch (the last one has the rest), at any world size.
        pin_memory: Whether batches come in page-locked memory, for copies to a GPU.

    Returns:
        A loader of about `n / batch_size / world_size` batches, not augmented.

    Raises:
        ValueError: The batch size is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"{batch_size=} must be at least 1")
    assert 0 <= rank < world_size, (rank, world_size)
    batches = torch.split(indices, batch_size) if len(indices) else ()
    return _loader(_Batches(images, batches), range(rank, len(batches), world_size), pin_memory=pin_memory)


@dataclass(frozen=True)
class _Batches(Dataset[Batch]):
    """Item i is batch i: one fetch by all its indices at once, augmented if asked for.

    Attributes:
        images: The set.
        samples: int64 [n] for each batch.
        augmentation: What may happen to an image; None = nothing.
        seed: For the augmentation.
        epoch: For the augmentation.
    """

    images: ImageSet
    samples: Sequence[Tensor]
    augmentation: Augmentation | None = None
    seed: int = 0
    epoch: int = 0

    def __getitem__(self, step: int) -> Batch:
        samples = self.samples[step]
        images = self.images.images.index_select(0, samples)
        labels = self.images.labels.index_select(0, samples)
        if self.augmentation is not None:
            images = self.augmentation(images, samples, self.seed, self.epoch)
        return Batch(images, labels, step)


def _loader(dataset: _Batches, steps: range, *, pin_memory: bool) -> DataLoader[Batch]:
    """Return a loader of whole items in the order of `steps`.

    It has a generator of its own: without one, starting an iteration draws from torch's global generator, and a run
    that was resumed would see other dropout than one that was not.
    """
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=steps,
        collate_fn=_same,
        generator=torch.Generator(),
        pin_memory=pin_memory,
    )


def _same(batch: Any) -> Any:
    return batch
