"""What a phase of training, the plain one or a stage's re-training, works with: made from the configuration."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from inq_ray.core.optim.sgd import SGD
from inq_ray.training.config import TrainingConfig
from inq_ray.training.loop.batches import TrainBatches
from inq_ray.training.loop.cuda_graph import CudaGraph
from inq_ray.training.loop.ema import Ema, decay_of_reach
from inq_ray.training.loop.lr_schedule import lr_factor
from inq_ray.training.loop.non_finite import Faults
from inq_ray.training.loop.trainer import Trainer
from inq_ray.training.task.distill import Teacher
from inq_ray.training.task.wrapping import wrap


def make_trainer(
    batches: TrainBatches,
    optimizer: SGD,
    *,
    stage: int,
    lr: float,
    epochs: int,
    faults: Faults,
    teacher: Teacher | None = None,
) -> Trainer:
    """Return the trainer of a phase at its start. It wraps the network: stop gradients of frozen tensors before.

    Args:
        batches: Batches of the phase, with network, data and hyperparameters.
        optimizer: Moves the weights.
        stage: 0 while the network is float, else from 1.
        lr: Learning rate at the start of the phase.
        epochs: Epochs of the phase, over which the learning rate is scheduled.
        faults: Faults so far.
        teacher: Teacher of a stage that is distilled.
    """
    task, training = batches.task, batches.training
    device = task.to_input.device
    _set_rate(optimizer, lr)
    dtype = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision_of(training, device)]
    return Trainer(
        batches=batches,
        model=wrap(task.model, device, compile=training.compile, sync_batchnorm=training.sync_batchnorm),
        optimizer=optimizer,
        scheduler=_lr_scheduler(training, optimizer, epochs, batches.steps_of_epoch, faults.lr_factor(stage)),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype is torch.float16),
        autocast_dtype=dtype,
        ema=_ema(training, task.model, epochs * batches.steps_of_epoch),
        teacher=teacher,
        stage=stage,
        faults=faults,
        graph=CudaGraph(task.model) if training.cuda_graphs else None,
    )


def _ema(training: TrainingConfig, model: nn.Module, num_steps: int) -> Ema | None:
    """The averages of a phase of so many steps."""
    if training.ema_share is not None:
        return Ema(model, decay_of_reach(training.ema_share * num_steps))
    return None if training.ema_decay is None else Ema(model, training.ema_decay)


def precision_of(training: TrainingConfig, device: torch.device) -> str:
    """Return float32, bf16 or fp16: what --precision auto means on a device."""
    if training.precision == "auto":
        return "bf16" if device.type == "cuda" else "float32"
    return training.precision


def sgd_options(training: TrainingConfig) -> dict[str, Any]:
    """Arguments of :class:`inq_ray.SGD` beside parameters and learning rate."""
    return {
        "momentum": training.momentum,
        "nesterov": training.nesterov,
        "weight_decay": training.weight_decay,
        "fused": True,
    }


def _set_rate(optimizer: SGD, lr: float) -> None:
    """Makes this the rate from which a new schedule goes out, which would take that of the stage before."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = lr


def _lr_scheduler(training: TrainingConfig, optimizer: SGD, epochs: int, num_steps: int, scale: float) -> LambdaLR:
    """The course of a phase of so many epochs, from its start."""
    factor: Callable[[int], float] = functools.partial(
        _scaled_lr_factor, scale=scale, steps_per_epoch=num_steps, epochs=epochs, training=training
    )
    return LambdaLR(optimizer, factor)


def _scaled_lr_factor(step: int, *, scale: float, **course: Any) -> float:
    return scale * lr_factor(step, **course)
