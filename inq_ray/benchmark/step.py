"""Time of a training step and of its optimizer step, and bytes of gradients, by portion and by what workers exchange.

| gradients   | what workers exchange                                                                     |
|-------------|-------------------------------------------------------------------------------------------|
| dense       | all gradients                                                                             |
| live        | those of live weights, biases and normalization                                           |
| bf16        | all, as bfloat16; as torch's bf16_compress_hook                                           |
| live + bf16 | those of live weights, biases and normalization as bfloat16                               |
| none        | nothing: the time of computing alone                                                      |

A step is that of a run: the same trainer, wrapper and hook, with images in memory. All but "none" go through the hook,
also "dense", as after --gradient-communication auto has chosen that; it adds less than 1 % of an exchange.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.nn.parallel import DistributedDataParallel

from inq_ray.benchmark.figures import Figure
from inq_ray.benchmark.subject import EPOCH_STEPS, PORTIONS, Effort, Subject
from inq_ray.benchmark.turns import Case, meet, take_turns, together
from inq_ray.distributed.replica import largest
from inq_ray.distributed.wire import world_size
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.loop.batches import TrainBatches
from inq_ray.training.loop.build import make_trainer
from inq_ray.training.loop.non_finite import Faults
from inq_ray.training.loop.trainer import EpochState, Trainer
from inq_ray.training.report.screen import duration
from inq_ray.training.task.distill import Teacher, make_teacher
from inq_ray.training.task.wrapping import WARM_UP_PASSES

NONE = "none"


class Exchange(NamedTuple):
    """Settings of :class:`inq_ray.LiveGradients`."""

    is_live: bool
    dtype: torch.dtype | None


EXCHANGES = {
    "dense": Exchange(is_live=False, dtype=None),
    "live": Exchange(is_live=True, dtype=None),
    "bf16": Exchange(is_live=False, dtype=torch.bfloat16),
    "live + bf16": Exchange(is_live=True, dtype=torch.bfloat16),
}
# Cases of a round with several workers.
NUM_KINDS = len(EXCHANGES) + 1


def measure_step(subject: Subject) -> list[Figure]:
    """Return the figures at each portion; every rank calls it."""
    training = subject.config.training
    optimizer = subject.optimizer(subject.task.model)
    inq = subject.scheduler(optimizer)
    teacher = make_teacher(training, subject.config.network.arch, subject.task)
    figures: list[Figure] = []
    for portion in PORTIONS:
        if portion:
            inq.step()
        trainer = trainer_of(subject, optimizer, teacher)
        figures += _steps(subject, trainer, portion)
        figures.append(_optimizer_step(subject, trainer, portion))
        del trainer  # its DDP, before the next one of the same network
    return figures


def trainer_of(subject: Subject, optimizer: Any, teacher: Teacher | None) -> Trainer:
    """Return the trainer of a stage, with buckets that do not change any more."""
    config = subject.config.replace(training={"gradient_communication": "live"})
    batches = TrainBatches(task=subject.task, training=config.training, bad_images=BadImages(0))
    trainer = make_trainer(batches, optimizer, stage=1, lr=0.0, epochs=1, faults=Faults(), teacher=teacher)
    trainer.warm_up_ddp()
    return trainer


def _steps(subject: Subject, trainer: Trainer, portion: float) -> list[Figure]:
    """Return time and bytes of a step at the current portion, for each exchange."""
    kinds = (NONE,) if trainer.live is None else (*EXCHANGES, NONE)
    for kind in kinds:  # positions are found
        run_steps(trainer, kind, 1)
    meet(subject.device)
    began = time.perf_counter()
    run_steps(trainer, kinds[0], 1)
    meet(subject.device)
    (seconds,) = largest(torch.tensor([time.perf_counter() - began], dtype=torch.float64)).tolist()
    num_steps, num_rounds = plan(subject.settings.effort, seconds, len(kinds))
    if portion == 0:
        total = duration(seconds * num_all_steps(subject.settings.effort, seconds, len(kinds)))
        subject.tell(f"{world_size()} worker(s): a step takes {seconds:.2g} s, so all steps take about {total}")
    cases = {kind: together(_turn(trainer, kind, num_steps), subject.device) for kind in kinds}
    turns = take_turns(cases, num_rounds)
    times = {kind: [each / num_steps for each in turns[kind]] for kind in kinds}
    figures = [
        Figure.of("step", times[kind], portion=portion, gradients=kind, reference=times.get("dense")) for kind in kinds
    ]
    if trainer.live is not None:
        figures += [
            Figure.of("step_bytes", [_num_bytes(trainer, kind)], portion=portion, gradients=kind) for kind in EXCHANGES
        ]
    return figures


def plan(effort: Effort, seconds: float, num_kinds: int) -> tuple[int, int]:
    """Return the number of steps in a turn, and of rounds.

    Args:
        effort: How much time it takes.
        seconds: Time of a step.
        num_kinds: Number of cases in a round.
    """
    num_steps = max(1, min(EPOCH_STEPS, math.ceil(effort.turn_seconds / seconds)))
    num_rounds = int(effort.portion_seconds / (seconds * num_steps * num_kinds))
    return num_steps, max(effort.num_rounds, min(effort.most_rounds, num_rounds))


def num_all_steps(effort: Effort, seconds: float, num_kinds: int) -> int:
    """Return the number of steps at all portions, timed or not, with the passes that warm up DDP.

    The arguments are those of :func:`plan`.
    """
    num_steps, num_rounds = plan(effort, seconds, num_kinds)
    is_alone = num_kinds == 1
    num_untimed = num_kinds + 1 + (0 if is_alone else len(EXCHANGES) + WARM_UP_PASSES)
    return len(PORTIONS) * (num_kinds * num_steps * (num_rounds + 1) + num_untimed)


def _turn(trainer: Trainer, kind: str, num_steps: int) -> Callable[[], None]:
    return lambda: run_steps(trainer, kind, num_steps)


def run_steps(trainer: Trainer, kind: str, num_steps: int) -> None:
    """Run training steps with an exchange."""
    sums = torch.zeros(3, dtype=torch.float64, device=trainer.task.to_input.device)
    with _exchanging(trainer, kind):
        trainer.train_epoch(0, _ignore, EpochState(step=trainer.num_steps - num_steps, sums=sums))


def _ignore(_: EpochState) -> None:
    """Ignore progress."""


@contextlib.contextmanager
def _exchanging(trainer: Trainer, kind: str) -> Iterator[None]:
    """Let workers exchange these gradients during the block."""
    if trainer.live is None:
        yield
        return
    assert isinstance(trainer.model, DistributedDataParallel)
    if kind == NONE:
        with trainer.model.no_sync():
            yield
        return
    trainer.live.is_on, trainer.live.dtype = EXCHANGES[kind]
    yield


def _num_bytes(trainer: Trainer, kind: str) -> float:
    """Return the bytes of gradients that this rank hands over to the exchange in a step."""
    assert trainer.live is not None
    before = trainer.live.num_bytes
    run_steps(trainer, kind, 1)
    return float(trainer.live.num_bytes - before)


def _optimizer_step(subject: Subject, trainer: Trainer, portion: float) -> Figure:
    """Return the time of the optimizer's step on the gradients of the last step, and its ratio to torch's."""
    ours = trainer.optimizer
    copies = [(param.detach().clone(), param.grad) for group in ours.param_groups for param in group["params"]]
    for copied, grad in copies:
        copied.grad = None if grad is None else grad.clone()
    training = trainer.training
    torchs = torch.optim.SGD(
        [copied for copied, _ in copies],
        lr=0.0,
        momentum=training.momentum,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay,
        fused=True,
    )
    cases = {"ours": _stepping(ours, subject.device), "torch": _stepping(torchs, subject.device)}
    seconds = take_turns(cases, subject.settings.effort.most_rounds)
    return Figure.of("optimizer", seconds["ours"], portion=portion, reference=seconds["torch"])


def _stepping(optimizer: torch.optim.Optimizer, device: torch.device) -> Case:
    return together(optimizer.step, device)
