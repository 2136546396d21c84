"""Learning rate of the stages, found by short trials before the first stage (--lr-probe).

A rate that suits one network, batch size and data set does not suit another, and a float network that is given trained
does not show which rate trained it. So a copy of the task that stages have is tried: most weights are frozen, and the
others are trained for a few steps with each of several rates. The rate that ends with the least loss is kept. Images
are new in each step of a trial, and the same in all trials, so losses compare rates and nothing else.

Nothing remains of the trials: weights and buffers get their bits back, and random numbers of training are a function of
the position in the run. Every rank does the same with its shards, and sums are over all ranks.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inq_ray.core.codebook import Rule
from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.replica import sum_counts
from inq_ray.scheduler import INQScheduler
from inq_ray.training.loop.batches import TrainBatches
from inq_ray.training.loop.build import make_trainer, sgd_options
from inq_ray.training.loop.non_finite import DivergedError, Faults
from inq_ray.training.loop.trainer import EpochState
from inq_ray.training.task.distill import Teacher

# Rates that can be found, about a factor of 3 apart: the loss hardly differs between closer ones.
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
_FIRST = RATES.index(0.01)
# Frozen portion in trials. It is a constant, so that runs with other schedules find the same rate.
PORTION = 0.75
# Steps of a trial, at most an epoch.
MOST_STEPS = 50


def find_rate(loss_of: Callable[[float], float], rates: Sequence[float], first: int) -> dict[float, float]:
    """Return the losses of the rates that were tried, from the least loss to the largest.

    The search goes downhill from the first rate, and ends at a rate whose neighbors are not better.

    Args:
        loss_of: Returns the loss of a rate; inf or nan if training diverged.
        rates: Rates, ascending.
        first: Index of the rate that is tried first.
    """
    losses: dict[int, float] = {}

    def at(index: int) -> float:
        if not 0 <= index < len(rates):
            return math.inf
        if index not in losses:
            loss = loss_of(rates[index])
            losses[index] = math.inf if math.isnan(loss) else loss
        return losses[index]

    best = first
    while True:
        # Lower rates first: of equal losses the lower rate is kept, and if all diverged the search goes down.
        lower, higher = at(best - 1), at(best + 1) if at(best) < math.inf else math.inf
        if best > 0 and lower <= min(at(best), higher):
            best -= 1
        elif higher < at(best):
            best += 1
        else:
            return {rates[index]: losses[index] for index in sorted(losses, key=lambda each: (losses[each], each))}


def probe_rate(
    batches: TrainBatches,
    groups: Sequence[dict[str, Any]],
    teacher: Teacher | None,
    quantize: Callable[[INQScheduler], None],
    *,
    epoch: int,
    strategy: str,
    codebook: Rule,
) -> dict[float, float]:
    """Return the losses of tried rates, best first, and leave the network as it was; every rank calls it.

    Args:
        batches: Training batches, with the float network.
        groups: The network's parameters, from :func:`inq_ray.param_groups`.
        teacher: Teacher of the stages; None = labels.
        quantize: Quantizes the first portion of a scheduler, as stages do.
        epoch: Epoch over the whole run, from 0, whose first batches are used.
        strategy: Partition strategy.
        codebook: Rule for the largest power.

    Raises:
        ValueError: More images than allowed cannot be read, or the storage does not respond.
    """
    model, training = batches.task.model, batches.training
    was_training, before = model.training, _copies(model)
    optimizer = SGD(
        [{**group, "params": list(group["params"])} for group in groups], lr=training.lr, **sgd_options(training)
    )
    quantize(INQScheduler(optimizer, (PORTION, 1.0), strategy, training.seed, codebook=codebook))
    quantized = _copies(model)
    num_steps = min(MOST_STEPS, batches.steps_of_epoch)
    short = dataclasses.replace(
        training,
        limit_batches=num_steps,
        lr_schedule="cosine",
        warmup_epochs=0.0,
        ema_decay=None,
        ema_share=None,
        on_nan="stop",
        gradient_communication="dense",  # what auto chooses depends on time
        compile=False,
        cuda_graphs=False,
    )
    of_trials = dataclasses.replace(batches, training=short)

    def loss_of(lr: float) -> float:
        _restore(model, quantized)
        optimizer.state.clear()
        return _loss_of_trial(of_trials, optimizer, teacher, lr=lr, epoch=epoch)

    losses = find_rate(loss_of, RATES, _FIRST)
    _restore(model, before)
    model.train(was_training).zero_grad(set_to_none=True)
    return losses


def _loss_of_trial(batches: TrainBatches, optimizer: SGD, teacher: Teacher | None, *, lr: float, epoch: int) -> float:
    """Train an epoch from the current weights; return the mean loss in the second half of its steps, over all ranks."""
    trainer = make_trainer(batches, optimizer, stage=1, lr=lr, epochs=1, faults=Faults(), teacher=teacher)
    trainer.warm_up_ddp()
    num_steps, halves = batches.steps_of_epoch, []

    def on_step(state: EpochState) -> None:
        if state.step in (num_steps // 2, num_steps):
            halves.append(state.sums.clone())

    try:
        trainer.train_epoch(epoch, on_step)
    except DivergedError:  # raised on every rank
        return math.inf
    sums = halves[-1] if len(halves) == 1 else halves[1] - halves[0]
    loss, _, samples = sum_counts(sums).tolist()
    return loss / samples if samples else math.inf


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}


@torch.no_grad()
def _restore(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in _tensors(model).items():
        tensor.copy_(tensors[name])


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
