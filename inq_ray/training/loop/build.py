"""Construction of a phase's trainer from the configuration."""

import functools
from typing import Any

import torch
from torch import nn

from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.gradients import LiveGradients
from inq_ray.distributed.wire import world_size
from inq_ray.training.config import TrainingConfig
from inq_ray.training.loop.batches import TrainBatches
from inq_ray.training.loop.cuda_graph import CudaGraph, has_whole_step, state_of_step
from inq_ray.training.loop.device_rates import DeviceRates
from inq_ray.training.loop.ema import Ema, decay_of_horizon
from inq_ray.training.loop.lr_schedule import lr_scheduler
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
    """Return the trainer of a phase at its start. It wraps the network: stop gradients of frozen tensors first.

    Args:
        batches: Batches of the phase, with network, data and hyperparameters.
        optimizer: Optimizer of the weights.
        stage: 0 during float training, else from 1.
        lr: Initial learning rate of the phase.
        epochs: Epochs of the phase, which the learning rate schedule spans.
        faults: Faults so far.
        teacher: Teacher, for a distilled stage.
    """
    task, training = batches.task, batches.training
    device = task.to_input.device
    live = LiveGradients(optimizer) if _sends_live(training, stage) else None
    ema = _ema(training, task.model, epochs * batches.steps_of_epoch)
    state = functools.partial(state_of_step, task.model, optimizer, ema)
    dtype = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision_of(training, device)]
    return Trainer(
        batches=batches,
        model=wrap(task.model, device, compile=training.compile, sync_batchnorm=training.sync_batchnorm, live=live),
        optimizer=optimizer,
        scheduler=lr_scheduler(
            optimizer,
            training,
            lr=lr,
            scale=faults.lr_factor(stage),
            steps_per_epoch=batches.steps_of_epoch,
            epochs=epochs,
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype is torch.float16),
        autocast_dtype=dtype,
        ema=ema,
        teacher=teacher,
        stage=stage,
        faults=faults,
        graph=CudaGraph(task.model, state) if training.cuda_graphs else None,
        rates=DeviceRates(optimizer, device) if has_whole_step(training) else None,
        live=live,
    )


def _sends_live(training: TrainingConfig, stage: int) -> bool:
    """Return whether gradients of live weights only may be sent in a phase."""
    return training.gradient_communication != "dense" and stage > 0 and world_size() > 1


def _ema(training: TrainingConfig, model: nn.Module, num_steps: int) -> Ema | None:
    """Return the averages for a phase with this many steps."""
    if training.ema_share is not None:
        return Ema(model, decay_of_horizon(training.ema_share * num_steps))
    return None if training.ema_decay is None else Ema(model, training.ema_decay)


def precision_of(training: TrainingConfig, device: torch.device) -> str:
    """Return float32, bf16 or fp16, resolving --precision auto for a device."""
    if training.precision == "auto":
        return "bf16" if device.type == "cuda" else "float32"
    return training.precision


def sgd_options(training: TrainingConfig) -> dict[str, Any]:
    """Return arguments of :class:`inq_ray.SGD` other than parameters and learning rate."""
    return {
        "momentum": training.momentum,
        "nesterov": training.nesterov,
        "weight_decay": training.weight_decay,
        "fused": True,
    }
