"""The course of the learning rate within one stage."""

import math

from inq_ray.training.config import TrainingConfig


def lr_factor(step: int, *, steps_per_epoch: int, epochs: int, training: TrainingConfig) -> float:
    """Factor of the learning rate at a step of a stage.

    Args:
        step: optimizer steps since the stage began, from 0.
        steps_per_epoch: optimizer steps an epoch.
        epochs: epochs of the stage.
        training: names the schedule: "cosine" falls to 0 at the stage's end, "step" multiplies by ``lr_gamma`` every
            ``lr_step_epochs``, "constant" stays; each after a linear rise over ``warmup_epochs``.

    Returns:
        A number in (0, 1].
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
