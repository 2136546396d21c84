"""Losses and gradients that are not finite: found by all ranks, left out or gone back from, and move no bit."""

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inq_ray.data.loader import Batch
from inq_ray.distributed.wire import rank
from inq_ray.training.config import RunConfig
from inq_ray.training.loop.ema import Ema
from inq_ray.training.loop.non_finite import (
    MOST_IN_A_ROW,
    MOST_REWINDS,
    DivergedError,
    Faults,
    NonFiniteMonitor,
    is_finite,
    propagate_nonfinite,
)
from inq_ray.training.loop.trainer import Trainer
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.run_state import RunState
from tests.ranks import run_ranks
from tests.training.loop.test_trainer import make_trainer
from tests.training.runs import configured, needs_digits, read_rows, read_summary, run_here, run_in_parts

NAN, INF = math.nan, math.inf


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.floats(-2, 2, width=32))
def test_a_finite_loss_keeps_its_bits_and_its_gradient(value: float, other: float) -> None:
    def of(mark: Any) -> tuple[Tensor, Tensor | None]:
        leaf = torch.tensor(other, requires_grad=True)
        loss = mark(torch.tensor(value) + 0 * leaf + leaf.sin())
        loss.backward()
        return loss.detach().view(torch.int32), None if leaf.grad is None else leaf.grad.view(torch.int32)

    assert of(propagate_nonfinite) == of(lambda loss: loss)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_loss_that_is_not_finite_has_no_finite_gradient(value: float) -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    propagate_nonfinite(weight.sum() + value).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.isnan().all()
    assert not is_finite([weight])


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_one_element_is_enough(value: float) -> None:
    params = [torch.zeros(3), torch.zeros(2, 2), torch.zeros(1)]
    for param in params[:2]:
        param.grad = torch.ones_like(param)
    assert is_finite(params)
    assert params[1].grad is not None
    params[1].grad[1, 0] = value
    assert not is_finite(params)


def test_a_monitor_names_the_first_fault_once() -> None:
    monitor = NonFiniteMonitor()
    assert monitor.first_fault() is None
    for step, finite in enumerate([True, False, True, False]):
        monitor.note(3, step, torch.tensor(finite))
    assert len(monitor) == 4
    assert monitor.first_fault() == (3, 1)
    assert monitor.first_fault() is None


def inject(faults: set[tuple[int, int]], value: float = NAN, *, on_rank: int = 0, until_rewound: bool = False) -> None:
    """From here on the losses of these (epoch of the run, step), both from 0, are no numbers; on one rank alone.

    Only in a process of its own.
    """
    functional = torch.nn.functional
    step, cross_entropy, here = Trainer._step, functional.cross_entropy, [False]

    def noted(self: Trainer, batch: Batch, epoch: int) -> Tensor:
        is_over = until_rewound and self.stage in self.faults.rewinds
        here[0] = (epoch, batch.step) in faults and rank() == on_rank and not is_over
        try:
            return step(self, batch, epoch)
        finally:
            here[0] = False

    Trainer._step = noted  # type: ignore[method-assign]
    functional.cross_entropy = lambda *args, **options: cross_entropy(*args, **options) * (value if here[0] else 1.0)


def outcome(faults: set[tuple[int, int]], value: float) -> str:
    inject(faults, value, on_rank=torch.distributed.get_world_size() - 1)
    try:
        make_trainer(40, batch_size=10).train_epoch(4, lambda *_: None)
    except DivergedError as error:
        return str(error)
    return "went on"


@pytest.mark.system
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("value", [NAN, INF])
def test_the_step_is_named_on_every_rank(size: int, value: float) -> None:
    answers = run_ranks(outcome, size, {(4, 2)}, value)
    assert len(set(answers)) == 1
    assert answers[0].startswith("stage 0, epoch 5 of the run, step 3: the loss or its gradient is not finite: lower")


def state_of(trainer: Trainer) -> list[Tensor]:
    optimizer = trainer.optimizer
    momentum = [entry["momentum_buffer"] for entry in optimizer.state.values()]
    averages = list(trainer.ema.state_dict().values()) if trainer.ema else []
    return [each.clone() for each in [*trainer.task.model.state_dict().values(), *momentum, *averages]]


def skip_a_step(value: float) -> None:
    """A network with BatchNorm, of which half the first weights are frozen, and averages."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3)
    )
    made = make_trainer(40, network, batch_size=10, on_nan="skip")
    weight = network[0].weight
    frozen = torch.arange(weight.numel()).view(weight.shape) % 2 == 0
    made.optimizer.freeze(weight, frozen)
    trainer = Trainer(**{**vars(made), "ema": Ema(network, 0.9)})
    inject({(0, 2)}, value)
    before = weight.detach()[frozen].clone()
    states: list[list[Tensor]] = []
    trainer.train_epoch(0, lambda _: states.append(state_of(trainer)))
    bits = [[each.view(torch.uint8) if each.ndim else each for each in state] for state in states]
    assert all(map(torch.equal, bits[1], bits[2]))
    assert not all(map(torch.equal, bits[0], bits[1]))
    assert not all(map(torch.equal, bits[2], bits[3]))
    assert all(bool(each.isfinite().all()) for each in states[-1])
    assert torch.equal(weight.detach()[frozen].view(torch.int32), before.view(torch.int32))
    assert trainer.scheduler.last_epoch == 4, "the schedule goes on"
    assert (trainer.faults.num_skipped, trainer.faults.in_a_row) == (1, 0)


@pytest.mark.system
@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("size", [1, 2])
def test_a_step_that_is_skipped_moves_nothing(value: float, size: int) -> None:
    run_ranks(skip_a_step, size, value)


def skip_many(count: int) -> tuple[int, float]:
    trainer = make_trainer(150, batch_size=10, on_nan="skip")
    inject({(0, step) for step in range(count)})  # from the first one on: nothing was stepped before
    seen: list[float] = []
    result = trainer.train_epoch(0, lambda at: seen.append(at.sums[2].item()))
    assert seen[-1] == (15 - count) * 10, "loss and accuracy are those of the other steps"
    return trainer.faults.num_skipped, result.loss


@pytest.mark.system
def test_too_many_in_a_row_end_the_run() -> None:
    num_skipped, loss = run_ranks(skip_many, 1, MOST_IN_A_ROW)[0]
    assert num_skipped == MOST_IN_A_ROW
    assert math.isfinite(loss)
    with pytest.raises(
        DivergedError, match=f"step {MOST_IN_A_ROW + 1}: .*, after {MOST_IN_A_ROW} such steps before it"
    ):
        run_ranks(skip_many, 1, MOST_IN_A_ROW + 1)


def scaled(faults: set[tuple[int, int]]) -> tuple[int, bool]:
    """A gradient is beyond its format in the third step, as fp16's; returns skipped steps, whether weights moved."""
    inject(faults, on_rank=torch.distributed.get_world_size() - 1)
    made = make_trainer(80, batch_size=10, on_nan="skip")
    trainer = Trainer(**{**vars(made), "scaler": torch.amp.GradScaler("cpu", init_scale=1024.0)})
    calls = itertools.count()
    next(trainer.task.model.parameters()).register_hook(lambda grad: grad * (INF if next(calls) == 2 else 1.0))
    before = copy.deepcopy(trainer.task.model.state_dict())
    trainer.train_epoch(0, lambda *_: None)
    after = trainer.task.model.state_dict()
    assert trainer.scaler.get_scale() == 1024.0 / 2 ** (1 + len(faults))
    return trainer.faults.num_skipped, any(not torch.equal(after[name], before[name]) for name in after)


@pytest.mark.system
@pytest.mark.parametrize("size", [1, 2])
def test_steps_that_a_scaler_leaves_out_are_no_faults(size: int) -> None:
    assert run_ranks(scaled, size, set()) == [(0, True)] * size
    assert run_ranks(scaled, size, {(0, 5)}) == [(1, True)] * size


def run_with_faults(
    config: RunConfig, stops: list[tuple[int, int, int]], faults: set[tuple[int, int]], until_rewound: bool
) -> tuple[str, list[str]]:
    inject(faults, on_rank=torch.distributed.get_world_size() - 1, until_rewound=until_rewound)
    return run_in_parts(config, stops)


@needs_digits
@pytest.mark.system
@pytest.mark.long
@pytest.mark.parametrize(("size", "on_nan"), [(1, "skip"), (2, "skip"), (2, "rewind")])
def test_faults_and_stops_together_end_in_the_same_bits(size: int, on_nan: str, tmp_path: Path) -> None:
    options = {"training": {"on_nan": on_nan, "ema_decay": 0.9}}
    calm, stopped, other = (configured(tmp_path, name, **options) for name in ("calm", "stopped", "other"))
    faults = {(2, 2), (2, 3), (5, 0)} if on_nan == "skip" else {(3, 1)}  # of two epochs of each phase, from 0
    stops = [(1, 1, 4), (1, 2, 4), (2, 2, 5)] if on_nan == "skip" else [(1, 1, 5), (1, 2, 3)]
    expected = run_ranks(run_with_faults, size, calm, [], faults, True)
    found = run_ranks(run_with_faults, size, stopped, stops, faults, True)
    without = run_ranks(run_in_parts, size, other, [])
    assert {digest for digest, _ in found} == {expected[0][0]}
    assert expected[0][0] != without[0][0]
    assert read_rows(RunFolder.planned(stopped)) == read_rows(RunFolder.planned(calm))
    ours, theirs = (read_summary(RunFolder.planned(config)) for config in (stopped, calm))
    assert ours["num_skipped_steps"] == theirs["num_skipped_steps"] == (3 if on_nan == "skip" else 0)
    assert ours["rewinds"] == theirs["rewinds"] == ([] if on_nan == "skip" else [1])
    assert ours["verification"] == theirs["verification"]


@needs_digits
@pytest.mark.system
def test_a_stage_that_begins_again_halves_its_own_rate(tmp_path: Path) -> None:
    training = {"on_nan": "rewind", "lr_each": (0.02, 0.01), "lr_schedule": "constant"}
    config = configured(tmp_path, "own", training=training)
    run_ranks(run_with_faults, 1, config, [(2, 1, 5)], {(5, 1)}, True)  # in the second epoch of the second stage
    rows = read_rows(RunFolder.planned(config))
    assert [float(row["lr"]) for row in rows if row["lr"]] == [0.1, 0.1, 0.02, 0.02, 0.005, 0.005]


def rewind_for_ever(config: RunConfig) -> list[str]:
    inject({(2, 1)})
    told: list[str] = []
    load = RunState.load

    def note(self: RunState) -> None:
        told.append(f"{self.journal.faults.rewinds}")
        load(self)

    RunState.load = note  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match=f"stage 1, epoch 3 .*stage 1 began again {MOST_REWINDS} times"):
        run_here(config)
    return told


@needs_digits
@pytest.mark.system
def test_a_stage_begins_again_a_few_times(tmp_path: Path) -> None:
    config = configured(tmp_path, "again", training={"on_nan": "rewind"})
    assert run_ranks(rewind_for_ever, 1, config) == [["()", "(1,)", "(1, 1)", "(1, 1, 1)"]]
    assert [row["stage"] for row in read_rows(RunFolder.planned(config))] == ["0", "0", "1"]


def test_each_rewind_halves_the_rate_of_its_stage() -> None:
    faults = Faults(rewinds=(2, 2, 3))
    assert [faults.lr_factor(stage) for stage in range(5)] == [1.0, 1.0, 0.25, 0.5, 1.0]
