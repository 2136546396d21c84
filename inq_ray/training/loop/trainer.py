"""One epoch of training: batches in, weights moved."""

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from inq_ray.core.optim.sgd import SGD
from inq_ray.data.augment.batch_mix import BatchMix
from inq_ray.data.loader import Batch, Request, train_requests
from inq_ray.distributed.replica import sum_counts
from inq_ray.distributed.wire import rank, world_size
from inq_ray.training.config import TrainingConfig
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.loop.clip import clip_live_gradients
from inq_ray.training.loop.cuda_graph import PassGraph
from inq_ray.training.loop.ema import Ema
from inq_ray.training.loop.microbatches import parts_of
from inq_ray.training.loop.non_finite import LOOK_STEPS, MOST_IN_A_ROW, DivergedError, Faults, Watch, is_finite, marked
from inq_ray.training.loop.step_rng import seed_draws
from inq_ray.training.loop.time_spent import Spent, Waiting, spent_in_epoch
from inq_ray.training.task.build import Task
from inq_ray.training.task.distill import Teacher
from inq_ray.training.task.wrapping import settle


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """One epoch over all ranks.

    Attributes:
        loss: mean over the images.
        top1: in percent, of augmented images; with mixup or cutmix of the first of the two labels.
        spent: wall-clock time, and what of it was waiting.
        images_per_second: of all ranks together.
    """

    loss: float
    top1: float
    spent: Spent
    images_per_second: float

    def figures(self) -> dict[str, float]:
        """By the names that a row of metrics has for them."""
        return {
            "train_loss": self.loss,
            "train_top1": self.top1,
            "train_seconds": self.spent.seconds,
            "data_seconds": self.spent.data_seconds,
            "network_seconds": self.spent.network_seconds,
            "images_per_second": self.images_per_second,
        }


@dataclass(frozen=True, kw_only=True)
class EpochState:
    """Where an epoch is, on one rank.

    Attributes:
        step: global batches done.
        sums: float64 [3] on the device, loss, hits and samples so far: reading it waits for the device.
        seconds: wall-clock time.
        data_seconds: of them, those in which this rank waited for images.
    """

    step: int
    sums: Tensor
    seconds: float = 0.0
    data_seconds: float = 0.0


OnStep = Callable[[EpochState], None]


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What one phase of training (the plain one, or a stage) works with.

    Attributes:
        task: network and data.
        training: hyperparameters.
        num_steps: global batches an epoch.
        shuffle_buffer: images among which a rank shuffles where they are read in groups.
        model: the network as it is called in training: wrapped by DDP where there are several ranks.
        optimizer: moves the weights.
        scheduler: stepped after every optimizer step.
        scaler: scales the loss for fp16; does nothing otherwise.
        autocast_dtype: of the forward pass; None = float32.
        mix: mixup and cutmix; None = neither.
        ema: average of the weights; None = none.
        teacher: whose outputs are learned; None = labels are.
        bad_images: counts what cannot be read.
        stage: for messages.
        order_workers: ranks for which the order of samples is laid out where they are read in groups; None = so many as
            there are.
        faults: counts steps whose loss or gradient is not finite.
        watch: steps of which that is not known yet.
        graph: by which the GPU runs forward and backward passes; None = they are launched kernel by kernel.
    """

    task: Task
    training: TrainingConfig
    num_steps: int
    shuffle_buffer: int
    model: nn.Module
    optimizer: SGD
    scheduler: LambdaLR
    scaler: torch.amp.GradScaler
    autocast_dtype: torch.dtype | None
    mix: BatchMix | None
    ema: Ema | None
    bad_images: BadImages
    teacher: Teacher | None = None
    stage: int = 0
    order_workers: int | None = None
    faults: Faults = field(default_factory=Faults)
    watch: Watch = field(default_factory=Watch)
    graph: PassGraph | None = None

    def train_epoch(self, epoch: int, on_step: OnStep, start: EpochState | None = None) -> EpochResult:
        """Trains for one epoch; every rank calls it.

        Args:
            epoch: counted over the whole run, from 0: order and augmentation depend on it.
            on_step: called on every rank after each step.
            start: where the epoch goes on; None = at its beginning.

        Raises:
            DivergedError: on every rank, where a step's loss or gradient is not finite and is not left out; with "stop"
                on a GPU within LOOK_STEPS steps, or by :meth:`check`, else before anything moves.
            ValueError: more images than allowed cannot be read, or the storage does not answer.
        """
        self.model.train()
        if start is None:
            start = EpochState(step=0, sums=torch.zeros(3, dtype=torch.float64, device=self.task.to_input.device))
        sums = start.sums.clone()
        batches = Waiting(self.task.loader.batches(self._requests(epoch, start.step)))
        began = time.perf_counter() - start.seconds
        for batch in batches:
            self.bad_images.add(batch.bad)
            sums += self._step(batch, epoch)
            seconds, data_seconds = time.perf_counter() - began, start.data_seconds + batches.seconds
            on_step(EpochState(step=batch.step + 1, sums=sums, seconds=seconds, data_seconds=data_seconds))
        self.check()
        self.bad_images.agree()
        loss, hits, samples = sum_counts(sums).tolist()
        seconds, data_seconds = time.perf_counter() - began, start.data_seconds + batches.seconds
        spent = spent_in_epoch(self.model, seconds=seconds, data_seconds=data_seconds, num_steps=self.num_steps)
        if not (math.isfinite(loss) and samples):
            raise DivergedError(f"{self._in_words(epoch)}: no step was finite: lower --lr, or warm up longer")
        return EpochResult(
            loss=loss / samples, top1=100 * hits / samples, spent=spent, images_per_second=samples / spent.seconds
        )

    def check(self) -> None:
        """To be called on every rank before what the steps so far have made is kept.

        Raises:
            DivergedError: on every rank, where one of them was not finite.
        """
        fault = self.watch.first_fault()
        if fault is not None:
            raise self._diverged(*fault)

    def settle(self) -> None:
        """Before the first epoch, on every rank; see :func:`~inq_ray.training.task.wrapping.settle`."""
        info, share = self.task.info, self.training.batch_size // world_size() // self.training.accumulate
        images = torch.zeros(share, info.channels, info.height, info.width, dtype=torch.uint8)
        labels = torch.zeros(share, dtype=torch.int64, device=self.task.to_input.device)

        def step() -> None:
            self._forward_backward(images, labels, (0, 0, 0, 0))

        self.model.train()
        settle(self.model, step)

    def _requests(self, epoch: int, start: int) -> Iterator[Request]:
        return train_requests(
            self.task.loader.sets["train"],
            self.task.train_indices,
            batch_size=self.training.batch_size,
            rank=rank(),
            world_size=world_size(),
            seed=self.training.seed,
            epoch=epoch,
            steps=range(start, self.num_steps),
            buffer=self.shuffle_buffer,
            num_data_shards=self.order_workers,
        )

    def _step(self, batch: Batch, epoch: int) -> Tensor:
        """One optimizer step on this rank's part of a global batch; returns its sums of loss, hits, samples."""
        device = self.task.to_input.device
        # What the network draws itself (dropout) is a function of these, not of what came before.
        seed_draws(device, self.training.seed, epoch, batch.step, rank())
        sums = torch.zeros(3, dtype=torch.float64, device=device)
        labels = batch.labels.to(device, non_blocking=True)
        before = [buffer.clone() for buffer in self.task.model.buffers()] if self.training.on_nan == "skip" else []
        parts = parts_of(batch, labels, self.training)
        self.optimizer.zero_grad(set_to_none=True)
        for index, (place, images, part_labels) in enumerate(parts):
            with self._only_local(index < len(parts) - 1):
                sums += self._forward_backward(images, part_labels, (self.training.seed, epoch, place, rank()))
        self.scaler.unscale_(self.optimizer)
        if self._is_fault(epoch, batch.step, sums[0]):
            self._leave_out(before)
            return torch.zeros_like(sums)
        if self.training.clip_grad_norm is not None:
            clip_live_gradients(self.optimizer, self.training.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        if self.ema is not None:
            self.ema.update()
        return sums

    def _is_fault(self, epoch: int, step: int, loss: Tensor) -> bool:
        """Whether a step is to be left out; the same on every rank.

        Raises:
            DivergedError: it was not finite, and the run shall not go on with it.
        """
        finite = is_finite(param for group in self.optimizer.param_groups for param in group["params"])
        on_nan, has_scale = self.training.on_nan, self.scaler.is_enabled()
        if on_nan == "stop" and finite.is_cuda and not has_scale:
            self.watch.note(epoch, step, finite)
            if len(self.watch) >= LOOK_STEPS:
                self.check()
            return False
        if finite:
            self.faults.in_a_row = 0
            return False
        if has_scale and self._is_of_scale(loss):
            return False
        if on_nan != "skip" or self.faults.in_a_row == MOST_IN_A_ROW:
            raise self._diverged(epoch, step)
        self.faults.num_skipped += 1
        self.faults.in_a_row += 1
        return True

    def _is_of_scale(self, loss: Tensor) -> bool:
        """Whether fp16's scale was too large and nothing else is wrong: GradScaler leaves such steps out by itself.

        A loss is each rank's own, so ranks have to ask each other here, where something has gone wrong.
        """
        num_faults = sum_counts(torch.tensor([int(not math.isfinite(loss.item()))]))
        return not num_faults.item() and self.scaler.get_scale() > 1

    def _leave_out(self, buffers: list[Tensor]) -> None:
        """Moves nothing but the learning rate: the next step finds all as this one did, BatchNorm's statistics too."""
        with torch.no_grad():
            for buffer, before in zip(self.task.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        if self.scaler.is_enabled():
            self.scaler.update()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")  # so it is meant
            self.scheduler.step()

    def _diverged(self, epoch: int, step: int) -> DivergedError:
        in_a_row = f", as in {self.faults.in_a_row} before it" if self.faults.in_a_row else ""
        line = f"{self._in_words(epoch)}, step {step + 1}: the loss or its gradient is not finite{in_a_row}"
        return DivergedError(f"{line}: lower --lr, warm up longer, or go on with another --on-nan (skip, rewind)")

    def _in_words(self, epoch: int) -> str:
        return f"stage {self.stage}, epoch {epoch + 1} of the run"

    def _forward_backward(self, images: Tensor, labels: Tensor, key: tuple[int, int, int, int]) -> Tensor:
        """A part of a step; returns its sums of loss, hits, samples."""
        inputs, targets = self.task.to_input(images), labels
        if self.mix is not None:
            inputs, targets = self.mix(inputs, labels, key)
        if self.graph is not None:
            return self.graph.run(self._pass, inputs, targets, labels)
        return self._pass(inputs, targets, labels)

    def _pass(self, inputs: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
        """Forward and backward, of tensors on the device alone; nothing is read back from it."""
        with torch.autocast(inputs.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None):
            logits = self.model(inputs).float()
        loss = nn.functional.cross_entropy(
            logits, targets, reduction="sum", label_smoothing=self.training.label_smoothing
        )
        if self.teacher is not None:
            loss = self.teacher.loss(inputs, logits, loss)
        # DDP averages over ranks, whose parts may differ in size: this makes it the mean over the global batch.
        scaled: Tensor = self.scaler.scale(marked(loss) * (world_size() / self.training.batch_size))
        scaled.backward()  # type: ignore[no-untyped-call]
        hits = (logits.detach().argmax(dim=1) == labels).sum()
        return torch.stack([loss.detach().double(), hits.double(), hits.new_full((), len(labels)).double()])

    def _only_local(self, local: bool) -> contextlib.AbstractContextManager[None]:
        """While ``local``, gradients are added up on this rank and not yet sent."""
        if local and isinstance(self.model, DistributedDataParallel):
            context: contextlib.AbstractContextManager[None] = self.model.no_sync()
            return context
        return contextlib.nullcontext()
