"""Learning rate schedule of one phase."""

import functools
import math
from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from inq_ray.core.optim.sgd import SGD
from inq_ray.training.config import TrainingConfig


def lr_scheduler(
    optimizer: SGD, training: TrainingConfig, *, lr: float, scale: float, steps_per_epoch: int, epochs: int
) -> LambdaLR:
    """Return the schedule of a phase, at its start.

    Args:
        optimizer: Optimizer, whose learning rates are set to those of the first step.
        training: Schedule, as in :func:`lr_factor`.
        lr: Initial learning rate of the phase.
        scale: Factor for all learning rates of the phase.
        steps_per_epoch: Optimizer steps per epoch.
        epochs: Epochs of the phase.
    """
    for group in optimizer.param_groups:  # a new schedule starts from these, which may be left from the previous stage
        group["lr"] = group["initial_lr"] = lr
    factor: Callable[[int], float] = functools.partial(
        _scaled_lr_factor, scale=scale, steps_per_epoch=steps_per_epoch, epochs=epochs, training=training
    )
    return LambdaLR(optimizer, factor)


def _scaled_lr_factor(step: int, *, scale: float, **course: Any) -> float:
    return scale * lr_factor(step, **course)


def lr_factor(step: int, *, steps_per_epoch: int, epochs: int, training: TrainingConfig) -> float:
    """Return the factor of the learning rate at a step of a phase.

    Args:
        step: Optimizer steps since the phase began, from 0.
        steps_per_epoch: Optimizer steps per epoch.
        epochs: Epochs of the phase.
        training: Schedule: "cosine" falls to 0 at the phase's end, "step" multiplies by ``lr_gamma`` every
            ``lr_step_epochs``, "constant" stays; each after a linear warm-up over ``warmup_epochs``.

    Returns:
        A number in [0, 1].
    """
    num_warmup = round(training.warmup_epochs * steps_per_epoch)
    if step < num_warmup:
        return (step + 1) / num_warmup
    if training.lr_schedule == "cosine":
        num_steps = max(1, epochs * steps_per_epoch - num_warmup)
        done = min(step - num_warmup, num_steps)
        return 0.5 * (1 + math.cos(math.pi * done / num_steps))
    if training.lr_schedule == "step":
        return float(training.lr_gamma ** math.floor(step / (training.lr_step_epochs * steps_per_epoch)))
    return 1.0
