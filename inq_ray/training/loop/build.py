"""What a phase of training, the plain one or a stage's re-training, works with: made from the configuration."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from inq_ray.core.optim.sgd import SGD
from inq_ray.data.augment.batch_mix import BatchMix
from inq_ray.data.loader import steps_per_epoch
from inq_ray.training.config import RunConfig, TrainingConfig
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.loop.cuda_graph import PassGraph
from inq_ray.training.loop.ema import Ema, decay_of_reach
from inq_ray.training.loop.lr_schedule import lr_factor
from inq_ray.training.loop.non_finite import Faults
from inq_ray.training.loop.trainer import Trainer
from inq_ray.training.task.build import Task
from inq_ray.training.task.distill import Teacher
from inq_ray.training.task.wrapping import wrap


def make_trainer(
    config: RunConfig,
    task: Task,
    optimizer: SGD,
    *,
    stage: int,
    epochs: int,
    faults: Faults,
    bad_images: BadImages,
    order_workers: int,
    teacher: Teacher | None = None,
) -> Trainer:
    """The trainer of a phase at its start; wraps the network, so gradients of frozen tensors are stopped before.

    Args:
        config: of the run.
        task: network and data.
        optimizer: moves the weights.
        stage: 0 while the network is float, else from 1.
        epochs: of the phase: its learning rate's course.
        faults: so far.
        bad_images: so far.
        order_workers: ranks for which the order of samples is laid out.
        teacher: of a stage that is distilled.
    """
    training, device = config.training, task.to_input.device
    _set_rate(optimizer, config.lr_of(stage))
    dtype = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision_of(config, device)]
    num_steps = steps_of_epoch(config, task)
    return Trainer(
        task=task,
        training=training,
        num_steps=num_steps,
        shuffle_buffer=config.data.shuffle_buffer,
        model=wrap(task.model, device, compile=training.compile, sync_batchnorm=training.sync_batchnorm),
        optimizer=optimizer,
        scheduler=_lr_scheduler(training, optimizer, epochs, num_steps, faults.lr_factor(stage)),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype is torch.float16),
        autocast_dtype=dtype,
        mix=make_mix(training, task.info.num_classes),
        ema=_ema(training, task.model, epochs * num_steps),
        bad_images=bad_images,
        teacher=teacher,
        stage=stage,
        order_workers=order_workers,
        faults=faults,
        graph=PassGraph(task.model) if training.cuda_graphs else None,
    )


def _ema(training: TrainingConfig, model: nn.Module, num_steps: int) -> Ema | None:
    """The averages of a phase of so many steps."""
    if training.ema_share is not None:
        return Ema(model, decay_of_reach(training.ema_share * num_steps))
    return None if training.ema_decay is None else Ema(model, training.ema_decay)


def precision_of(config: RunConfig, device: torch.device) -> str:
    """float32, bf16 or fp16: what --precision auto means on a device."""
    precision = config.training.precision
    if precision == "auto":
        return "bf16" if device.type == "cuda" else "float32"
    return precision


def make_mix(training: TrainingConfig, num_classes: int) -> BatchMix | None:
    """What mixes the batches of training; None = nothing does."""
    if training.mixup == training.cutmix == 0:
        return None
    return BatchMix(training.mixup, training.cutmix, num_classes)


def steps_of_epoch(config: RunConfig, task: Task) -> int:
    """Global batches an epoch."""
    steps = steps_per_epoch(len(task.train_indices), config.training.batch_size)
    return min(steps, config.training.limit_batches or steps)


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
