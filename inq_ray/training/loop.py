"""One epoch of training: batches in, weights moved."""

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler

from inq_ray.data.loader import Batch, steps_per_epoch, train_loader
from inq_ray.distributed.replica import rank, sum_counts, world_size
from inq_ray.training.build import Task
from inq_ray.training.config import TrainingConfig


class DivergedError(RuntimeError):
    """The loss is no longer a number; raised on every rank at once."""


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """One epoch over all ranks: mean loss, top-1 in percent, wall-clock seconds, images a second."""

    loss: float
    top1: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What one phase of training (the plain one, or a stage) works with.

    Attributes:
        task: network and data.
        training: hyperparameters.
        model: the network as it is called in training: wrapped by DDP where there are several ranks.
        optimizer: moves the weights.
        scheduler: stepped after every optimizer step.
        scaler: scales the loss for fp16; does nothing otherwise.
        autocast_dtype: of the forward pass; None = float32.
    """

    task: Task
    training: TrainingConfig
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler
    autocast_dtype: torch.dtype | None

    @property
    def num_steps(self) -> int:
        """Global batches an epoch."""
        return steps_per_epoch(len(self.task.train_indices), self.training.batch_size)

    def train_epoch(self, epoch: int, on_step: Callable[[int, Tensor, float], None]) -> EpochResult:
        """Trains for one epoch; every rank calls it.

        Args:
            epoch: counted over the whole run, from 0: order and augmentation depend on it.
            on_step: called on rank 0 after each step with steps done, this rank's sums of loss, hits and samples so far
                (float64 [3] on the device: reading it waits for the device), and seconds since the epoch began.

        Raises:
            DivergedError: on every rank, where the epoch's mean loss is not finite.
        """
        self.model.train()
        device = self.task.to_input.device
        # What the network draws itself (dropout) is a function of seed, epoch and rank, not of what came before.
        torch.manual_seed(_derived_seed(self.training.seed, epoch, rank()))
        sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, hits, samples
        began = time.perf_counter()
        for batch in self._batches(epoch):
            sums += self._step(batch)
            if rank() == 0:
                on_step(batch.step + 1, sums, time.perf_counter() - began)
        loss, hits, samples = sum_counts(sums).tolist()
        seconds = time.perf_counter() - began
        if not math.isfinite(loss):
            raise DivergedError(f"epoch {epoch + 1}: the training loss is {loss}: lower --lr, or warm up longer")
        return EpochResult(
            loss=loss / samples, top1=100 * hits / samples, seconds=seconds, images_per_second=samples / seconds
        )

    def _batches(self, epoch: int) -> Iterator[Batch]:
        yield from train_loader(
            self.task.train,
            self.task.train_indices,
            batch_size=self.training.batch_size,
            rank=rank(),
            world_size=world_size(),
            seed=self.training.seed,
            augmentation=self.task.augmentation,
            epoch=epoch,
            pin_memory=self.task.to_input.device.type == "cuda",
        )

    def _step(self, batch: Batch) -> Tensor:
        """One optimizer step on this rank's part of a global batch; returns its sums of loss, hits, samples."""
        device = self.task.to_input.device
        sums = torch.zeros(3, dtype=torch.float64, device=device)
        labels = batch.labels.to(device, non_blocking=True)
        num_parts = min(self.training.accumulate, len(labels))
        parts = list(zip(batch.images.tensor_split(num_parts), labels.tensor_split(num_parts), strict=True))
        self.optimizer.zero_grad(set_to_none=True)
        for index, (images, part_labels) in enumerate(parts):
            with self._only_local(index < len(parts) - 1):
                sums += self._forward_backward(images, part_labels)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        return sums

    def _forward_backward(self, images: Tensor, labels: Tensor) -> Tensor:
        device = self.task.to_input.device
        with torch.autocast(device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None):
            logits = self.model(self.task.to_input(images)).float()
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        # DDP averages over ranks, whose parts may differ in size: this makes it the mean over the global batch.
        scaled: Tensor = self.scaler.scale(loss * (world_size() / self.training.batch_size))
        scaled.backward()  # type: ignore[no-untyped-call]
        hits = (logits.detach().argmax(dim=1) == labels).sum()
        return torch.stack([loss.detach().double(), hits.double(), hits.new_tensor(len(labels)).double()])

    def _only_local(self, local: bool) -> contextlib.AbstractContextManager[None]:
        """While ``local``, gradients are added up on this rank and not yet sent."""
        if local and isinstance(self.model, DistributedDataParallel):
            context: contextlib.AbstractContextManager[None] = self.model.no_sync()
            return context
        return contextlib.nullcontext()


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """The model as all ranks train it together; the model itself where there is only one rank.

    BatchNorm's running statistics are rank 0's: training does not use them, and they are broadcast where they matter:
    at the start of a stage and before every validation.
    """
    if world_size() == 1:
        return model
    device_ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(
        model, device_ids=device_ids, forward_sync_buffers=False, gradient_as_bucket_view=True
    )


def _derived_seed(*parts: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "little")
