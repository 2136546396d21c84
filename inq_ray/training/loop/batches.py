"""Training batches of one rank, and the network's input for each: microbatches, on its device, mixed."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from inq_ray.data.augment.batch_mix import BatchMix
from inq_ray.data.loader import Batch, steps_per_epoch, train_requests
from inq_ray.distributed.wire import rank, world_size
from inq_ray.files.shown import counted
from inq_ray.training.config import TrainingConfig
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.task.build import Task


class Microbatch(NamedTuple):
    """Input of one forward pass.

    Attributes:
        inputs: float32 [N, C, H, W] on the network's device.
        targets: Targets of the outputs: the labels, or float32 [N, classes] for mixed images.
        labels: int64 [N] on the network's device.
        is_last: Whether it is the last one of its batch.
    """

    inputs: Tensor
    targets: Tensor
    labels: Tensor
    is_last: bool = True


@dataclass(frozen=True, kw_only=True)
class TrainBatches:
    """Training batches of one rank.

    Attributes:
        task: Network and data.
        training: Batch size, number of microbatches, mixing, random seed.
        bad_images: Counts unreadable images.
        shuffle_buffer: Images that a rank shuffles at a time, if they are read in groups.
        num_data_shards: Number of shards for the order of samples that are read in groups; None = the number of ranks.
    """

    task: Task
    training: TrainingConfig
    bad_images: BadImages
    shuffle_buffer: int = 1
    num_data_shards: int | None = None
    _mix: BatchMix | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        mixup, cutmix = self.training.mixup, self.training.cutmix
        if mixup or cutmix:
            object.__setattr__(self, "_mix", BatchMix(mixup, cutmix, self.task.info.num_classes))

    @property
    def steps_of_epoch(self) -> int:
        """Global batches per epoch."""
        return steps_of_epoch(len(self.task.train_indices), self.training)

    def read(self, epoch: int, steps: range) -> Iterator[Batch]:
        """Yield this rank's shard of each global batch.

        Args:
            epoch: Epoch over the whole run, from 0; order and augmentation depend on it.
            steps: Global batches within the epoch.

        Raises:
            ValueError: More images than allowed cannot be read, or the storage does not respond.
        """
        requests = train_requests(
            self.task.loader.sets["train"],
            self.task.train_indices,
            batch_size=self.training.batch_size,
            rank=rank(),
            world_size=world_size(),
            seed=self.training.seed,
            epoch=epoch,
            steps=steps,
            buffer=self.shuffle_buffer,
            num_data_shards=self.num_data_shards,
        )
        for batch in self.task.loader.batches(requests):
            self.bad_images.add(batch.bad)
            yield batch

    def microbatches(self, batch: Batch, epoch: int) -> Iterator[Microbatch]:
        """Yield the microbatches of a batch (--accumulate).

        The network's own random numbers (dropout) from the first microbatch on are a function of seed, epoch, step and
        rank, not of earlier batches.

        Raises:
            ValueError: No image could be read; or fewer than microbatches with --sync-batchnorm, whose ranks wait for
                each other in each microbatch.
        """
        training, device = self.training, self.task.to_input.device
        seed_step_rng(device, training.seed, epoch, batch.step, rank())
        num = _num_microbatches(batch, training)
        labels = batch.labels.to(device, non_blocking=True)
        pairs = zip(batch.images.tensor_split(num), labels.tensor_split(num), strict=True)
        for index, (images, of_images) in enumerate(pairs):
            key = (training.seed, epoch, batch.step * training.accumulate + index, rank())
            yield self.microbatch(images, of_images, key)._replace(is_last=index == num - 1)

    def microbatch(self, images: Tensor, labels: Tensor, key: tuple[int, int, int, int]) -> Microbatch:
        """Return the network's input for some images.

        Args:
            images: uint8 [N, C, H, W] on any device.
            labels: int64 [N] on the network's device.
            key: Seed, epoch, index of the microbatch in the epoch, and rank, which determine the mixing.
        """
        inputs, targets = self.task.to_input(images), labels
        if self._mix is not None:
            inputs, targets = self._mix(inputs, labels, key)
        return Microbatch(inputs, targets, labels)


def steps_of_epoch(num_train: int, training: TrainingConfig) -> int:
    """Return the number of global batches per epoch.

    Args:
        num_train: Number of training images.
        training: Batch size and --limit-batches.
    """
    steps = steps_per_epoch(num_train, training.batch_size)
    return min(steps, training.limit_batches or steps)


def steps_for(num_images: int, training: TrainingConfig, steps_of_epoch: int) -> int:
    """Return the number of global batches with this number of images: rounded up, at most an epoch."""
    return min(-(-num_images // training.batch_size), steps_of_epoch)


def seed_step_rng(device: torch.device, *position: int) -> None:
    """Seed torch's random numbers by the position, so that they do not depend on earlier steps.

    Args:
        device: Device on which the network draws random numbers.
        position: The run's seed, epoch, step, rank.
    """
    seed = int.from_bytes(hashlib.blake2b(repr(position).encode(), digest_size=7).digest(), "little")
    # Like torch.manual_seed, which takes a hundred times as long without a GPU.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _num_microbatches(batch: Batch, training: TrainingConfig) -> int:
    """Return the number of microbatches: that of --accumulate, or the number of images if that is smaller."""
    num_images, accumulate = len(batch.labels), training.accumulate
    if not num_images:
        raise ValueError(f"no image of a whole batch could be read; one is {batch.bad[0].name}")
    if training.sync_batchnorm and num_images < accumulate:
        raise ValueError(
            f"only {counted(num_images, 'image')} of a batch could be read (not {batch.bad[0].name}), and "
            f"--sync-batchnorm with --accumulate {accumulate} needs {accumulate}: repair the images, or "
            "lower --accumulate"
        )
    return min(accumulate, num_images)
