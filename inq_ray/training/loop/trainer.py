"""Trainer of one epoch."""

import contextlib
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from inq_ray.core.optim.sgd import SGD
from inq_ray.data.loader import Batch
from inq_ray.distributed.gradients import LiveGradients
from inq_ray.distributed.replica import sum_counts
from inq_ray.distributed.wire import world_size
from inq_ray.training.config import TrainingConfig
from inq_ray.training.loop.batches import Microbatch, TrainBatches
from inq_ray.training.loop.clip import clip_live_gradients
from inq_ray.training.loop.cuda_graph import CudaGraph
from inq_ray.training.loop.device_rates import DeviceRates, round_rates
from inq_ray.training.loop.ema import Ema
from inq_ray.training.loop.gradients import GradientTrial
from inq_ray.training.loop.non_finite import (
    CHECK_INTERVAL_STEPS,
    MOST_IN_A_ROW,
    DivergedError,
    Faults,
    NonFiniteMonitor,
    is_finite,
    propagate_nonfinite,
)
from inq_ray.training.loop.time_spent import Spent, Waiting, spent_in_epoch
from inq_ray.training.task.build import Task
from inq_ray.training.task.distill import Teacher
from inq_ray.training.task.wrapping import warm_up_ddp


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """Result of an epoch over all ranks.

    Attributes:
        loss: Mean over the images.
        top1: Accuracy in percent on augmented images; with Mixup or CutMix for the first of the two labels.
        spent: Wall-clock time, and time spent waiting.
        images_per_second: Images of all ranks together.
    """

    loss: float
    top1: float
    spent: Spent
    images_per_second: float

    def figures(self) -> dict[str, float]:
        """Return the values by their names in a row of metrics."""
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
    """Position and measurements within an epoch, on one rank.

    Attributes:
        step: Global batches done.
        sums: float64 [3] on the device, loss, hits and samples so far; reading it waits for the device.
        seconds: Wall-clock time.
        data_seconds: Time in which this rank waited for images.
    """

    step: int
    sums: Tensor
    seconds: float = 0.0
    data_seconds: float = 0.0


OnStep = Callable[[EpochState], None]


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Objects of one phase of training (float training, or a stage's re-training).

    Attributes:
        batches: Batches of the phase, with network, data and hyperparameters.
        model: Network wrapped for training, by DDP if there are several ranks.
        optimizer: Optimizer of the weights.
        scheduler: Learning rate schedule, stepped after every optimizer step.
        scaler: Loss scaler for fp16; does nothing otherwise.
        autocast_dtype: Dtype of the forward pass; None = float32.
        ema: Average of the weights; None = no average.
        teacher: Network whose outputs are the targets; None = labels are.
        stage: 0 during float training, else from 1.
        faults: Counts of steps whose loss or gradient is not finite.
        monitor: Steps not yet checked for that.
        graph: CUDA graph of a step; None = kernels are launched one by one.
        rates: Learning rates for a graph with the whole step; None = the graph has forward and backward passes only.
        live: Communication hook of the model; None = DDP exchanges all gradients on its own.
        trial: Trial of both choices of gradients to send; None = they are chosen.
    """

    batches: TrainBatches
    model: nn.Module
    optimizer: SGD
    scheduler: LambdaLR
    scaler: torch.amp.GradScaler
    autocast_dtype: torch.dtype | None = None
    ema: Ema | None = None
    teacher: Teacher | None = None
    stage: int = 0
    faults: Faults = field(default_factory=Faults)
    monitor: NonFiniteMonitor = field(default_factory=NonFiniteMonitor)
    graph: CudaGraph | None = None
    rates: DeviceRates | None = None
    live: LiveGradients | None = None
    trial: GradientTrial | None = None

    @property
    def task(self) -> Task:
        """Network and data."""
        return self.batches.task

    @property
    def training(self) -> TrainingConfig:
        """Hyperparameters."""
        return self.batches.training

    @property
    def num_steps(self) -> int:
        """Global batches per epoch."""
        return self.batches.steps_of_epoch

    def train_epoch(self, epoch: int, on_step: OnStep, start: EpochState | None = None) -> EpochResult:
        """Train for one epoch; every rank calls it.

        Args:
            epoch: Epoch over the whole run, from 0; order and augmentation depend on it.
            on_step: Called on every rank after each step.
            start: Position to continue the epoch from; None = from its beginning.

        Raises:
            DivergedError: A step's loss or gradient is not finite and the step is not skipped; raised on every rank,
                with "stop" on a GPU within CHECK_INTERVAL_STEPS steps or by :meth:`check`, else before weights are
                updated.
            ValueError: More images than allowed cannot be read, or the storage does not respond.
        """
        self.model.train()
        if self.graph is not None:
            self.graph.drop_if_changed()
        if start is None:
            start = EpochState(step=0, sums=torch.zeros(3, dtype=torch.float64, device=self.task.to_input.device))
        sums = start.sums.clone()
        batches = Waiting(self.batches.read(epoch, range(start.step, self.num_steps)))
        began = time.perf_counter() - start.seconds
        for batch in batches:
            sums += self._step(batch, epoch)
            seconds, data_seconds = time.perf_counter() - began, start.data_seconds + batches.seconds
            on_step(EpochState(step=batch.step + 1, sums=sums, seconds=seconds, data_seconds=data_seconds))
        self.check()
        self.batches.bad_images.agree()
        loss, hits, samples = sum_counts(sums).tolist()
        seconds, data_seconds = time.perf_counter() - began, start.data_seconds + batches.seconds
        spent = spent_in_epoch(self.model, seconds=seconds, data_seconds=data_seconds, num_steps=self.num_steps)
        if not (math.isfinite(loss) and samples):
            what = f"{self._in_words(epoch)}: no step was finite"
            raise DivergedError(self.stage, what, "lower --lr, or increase --warmup-epochs")
        return EpochResult(
            loss=loss / samples, top1=100 * hits / samples, spent=spent, images_per_second=samples / spent.seconds
        )

    def check(self) -> None:
        """Check the steps so far; every rank calls it before their result is saved.

        Raises:
            DivergedError: One of them was not finite; raised on every rank.
        """
        fault = self.monitor.first_fault()
        if fault is not None:
            raise self._diverged(*fault)

    def warm_up_ddp(self) -> None:
        """Let DDP rebuild its buckets; every rank calls it before the first epoch, see :func:`wrapping.warm_up_ddp`."""
        self.model.train()
        warm_up_ddp(self.model, self._blank_pass)

    def _blank_pass(self) -> Tensor:
        """Run the passes of a microbatch of black images."""
        info, num = self.task.info, self.training.batch_size // world_size() // self.training.accumulate
        images = torch.zeros(num, info.channels, info.height, info.width, dtype=torch.uint8)
        labels = torch.zeros(num, dtype=torch.int64, device=self.task.to_input.device)
        return self._forward_backward(self.batches.microbatch(images, labels, (0, 0, 0, 0)))

    def _step(self, batch: Batch, epoch: int) -> Tensor:
        """Run an optimizer step on this rank's shard of a global batch; return its sums of loss, hits, samples."""
        if self.task.to_input.device.type == "cuda":
            round_rates(self.optimizer)
        if self.graph is not None and self.rates is not None:
            return self._graph_step(self.graph, self.rates, batch, epoch)
        sums = torch.zeros(3, dtype=torch.float64, device=self.task.to_input.device)
        before = [buffer.clone() for buffer in self.task.model.buffers()] if self.training.on_nan == "skip" else []
        self.optimizer.zero_grad(set_to_none=True)
        with contextlib.nullcontext() if self.trial is None else self.trial.step():
            for microbatch in self.batches.microbatches(batch, epoch):
                with self._only_local(not microbatch.is_last):
                    sums += self._forward_backward(microbatch)
        self.scaler.unscale_(self.optimizer)
        if self._is_fault(epoch, batch.step, sums[0]):
            self._leave_out(before)
            return torch.zeros_like(sums)
        self._update()
        self.scaler.update()
        self.scheduler.step()
        return sums

    def _graph_step(self, graph: CudaGraph, rates: DeviceRates, batch: Batch, epoch: int) -> Tensor:
        """Run an optimizer step by a graph that has the whole of it, with --on-nan stop and one microbatch."""
        (microbatch,) = self.batches.microbatches(batch, epoch)
        rates.fill()
        sums, finite = graph.run(self._whole_step, microbatch.inputs, microbatch.targets, microbatch.labels)
        self._note(epoch, batch.step, finite)
        self.scheduler.step()
        return sums

    def _whole_step(self, inputs: Tensor, targets: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Run passes and update on tensors of the device; nothing is read back from it.

        Returns:
            Sums of loss, hits, samples; and whether the gradient is finite.
        """
        assert self.rates is not None
        self.optimizer.zero_grad(set_to_none=True)
        sums = self._pass(inputs, targets, labels)
        finite = self._has_finite_gradient()
        with self.rates.read():
            self._update()
        return sums, finite

    def _update(self) -> None:
        """Clip the gradient, step the optimizer, and update the average of weights."""
        if self.training.clip_grad_norm is not None:
            clip_live_gradients(self.optimizer, self.training.clip_grad_norm)
        self.scaler.step(self.optimizer)
        if self.ema is not None:
            self.ema.update()

    def _has_finite_gradient(self) -> Tensor:
        return is_finite(param for group in self.optimizer.param_groups for param in group["params"])

    def _note(self, epoch: int, step: int, finite: Tensor) -> None:
        """Keep whether a step was finite; check those kept every CHECK_INTERVAL_STEPS steps."""
        self.monitor.note(epoch, step, finite)
        if len(self.monitor) >= CHECK_INTERVAL_STEPS:
            self.check()

    def _is_fault(self, epoch: int, step: int, loss: Tensor) -> bool:
        """Return whether to skip a step; the same on every rank.

        Raises:
            DivergedError: It was not finite, and the run must not continue with it.
        """
        finite = self._has_finite_gradient()
        on_nan, has_scale = self.training.on_nan, self.scaler.is_enabled()
        if on_nan == "stop" and finite.is_cuda and not has_scale:
            self._note(epoch, step, finite)
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
        """Return whether fp16's scale was too large and nothing else is wrong: GradScaler skips such steps on its own.

        Losses differ between ranks, so ranks have to communicate here, but only after a fault.
        """
        num_faults = sum_counts(torch.tensor([int(not math.isfinite(loss.item()))]))
        return not num_faults.item() and self.scaler.get_scale() > 1

    def _leave_out(self, buffers: list[Tensor]) -> None:
        """Update only the learning rate: the next step starts from the same state, including BatchNorm's statistics."""
        with torch.no_grad():
            for buffer, before in zip(self.task.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        if self.scaler.is_enabled():
            self.scaler.update()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")  # intended
            self.scheduler.step()

    def _diverged(self, epoch: int, step: int) -> DivergedError:
        in_a_row = f", after {self.faults.in_a_row} such steps before it" if self.faults.in_a_row else ""
        what = f"{self._in_words(epoch)}, step {step + 1}: the loss or its gradient is not finite{in_a_row}"
        advice = "lower --lr, increase --warmup-epochs, or continue with another --on-nan (skip, rewind)"
        return DivergedError(self.stage, what, advice)

    def _in_words(self, epoch: int) -> str:
        return f"stage {self.stage}, epoch {epoch + 1} of the run"

    def _forward_backward(self, microbatch: Microbatch) -> Tensor:
        """Run the passes of a microbatch; return its sums of loss, hits, samples."""
        tensors = (microbatch.inputs, microbatch.targets, microbatch.labels)
        if self.graph is None:
            return self._pass(*tensors)
        (sums,) = self.graph.run(lambda *static: (self._pass(*static),), *tensors)
        return sums

    def _pass(self, inputs: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
        """Run forward and backward on tensors of the device; nothing is read back from it."""
        with torch.autocast(inputs.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None):
            logits = self.model(inputs).float()
        loss = nn.functional.cross_entropy(
            logits, targets, reduction="sum", label_smoothing=self.training.label_smoothing
        )
        if self.teacher is not None:
            loss = self.teacher.loss(inputs, logits, loss)
        # DDP averages over ranks, whose shards may differ in size: this gives the mean over the global batch.
        scaled: Tensor = self.scaler.scale(propagate_nonfinite(loss) * (world_size() / self.training.batch_size))
        scaled.backward()  # type: ignore[no-untyped-call]
        hits = (logits.detach().argmax(dim=1) == labels).sum()
        return torch.stack([loss.detach().double(), hits.double(), hits.new_full((), len(labels)).double()])

    def _only_local(self, local: bool) -> contextlib.AbstractContextManager[None]:
        """Return a context in which gradients are accumulated on this rank and not yet sent, if ``local``."""
        if local and isinstance(self.model, DistributedDataParallel):
            context: contextlib.AbstractContextManager[None] = self.model.no_sync()
            return context
        return contextlib.nullcontext()
