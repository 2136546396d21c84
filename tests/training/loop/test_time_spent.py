from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from inq_ray.distributed.wire import rank
from inq_ray.training.loop import time_spent
from inq_ray.training.loop.time_spent import Spent, Waiting, exposed_seconds, spent_in_epoch
from inq_ray.training.task.wrapping import wrap
from tests.clock import Clock
from tests.ranks import run_ranks


@pytest.mark.parametrize(
    ("data", "network", "bound", "parts"),
    [
        (1.0, 4.0, "compute", ["bottleneck: computation (waits are below 10 % of the time)"]),
        (9.9, 9.9, "compute", []),
        (0.0, 0.0, "compute", []),
        (10.0, 0.0, "data", ["data loading (10 % of the time)", "--loader-workers", "--cpus-per-worker"]),
        (37.0, 20.0, "data", ["data loading (37 % of the time)"]),
        (5.0, 60.0, "network", ["gradient exchange (60 % of the time)", "--batch-size", "--accumulate"]),
    ],
)
def test_the_verdict_names_what_was_waited_for_and_what_to_do(
    data: float, network: float, bound: str, parts: list[str]
) -> None:
    spent = Spent(seconds=100.0, data_seconds=data, network_seconds=network)
    assert spent.bound == bound
    line = str(spent)
    assert line.startswith("bottleneck: ")
    assert "\n" not in line
    assert all(part in line for part in parts)
    assert (";" in line) == (bound != "compute")


def test_nothing_trained_is_bound_by_nothing_else() -> None:
    assert Spent().bound == "compute"
    assert "waited" not in str(Spent())


@pytest.mark.parametrize(
    ("data", "network", "waits"),
    [
        (9.9, 9.9, ""),
        (25.0, 9.0, "waited 25 % for data"),
        (0.0, 19.0, "waited 19 % for gradients"),
        (30.0, 20.0, "waited 30 % for data, 20 % for gradients"),
    ],
)
def test_only_large_waits_are_shown(data: float, network: float, waits: str) -> None:
    assert Spent(seconds=100.0, data_seconds=data, network_seconds=network).waits == waits


@given(st.lists(st.tuples(*[st.floats(0.0, 1e6)] * 3), max_size=5))
def test_epochs_add_up(epochs: list[tuple[float, float, float]]) -> None:
    spent = sum(
        (Spent(seconds=sum(each), data_seconds=each[1], network_seconds=each[2]) for each in epochs), start=Spent()
    )
    assert spent.seconds == pytest.approx(sum(map(sum, epochs)))
    assert spent.data_seconds == pytest.approx(sum(each[1] for each in epochs))
    assert 0 <= spent.data_share + spent.network_share <= 1 + 1e-9


def test_waiting_is_timed_and_what_is_done_with_a_batch_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time_spent, "time", clock)

    def slow_batches() -> Iterator[int]:
        for number in range(3):
            clock.sleep(2.0)
            yield number
        clock.sleep(2.0)

    waiting, numbers = Waiting(slow_batches()), []
    for number in waiting:
        numbers.append(number)
        clock.sleep(5.0)
    assert numbers == [0, 1, 2]
    assert waiting.seconds == 8.0


def test_one_rank_waits_for_no_gradients() -> None:
    assert exposed_seconds(nn.Linear(2, 2)) == 0.0
    spent = spent_in_epoch(nn.Linear(2, 2), seconds=10.0, data_seconds=4.0, num_steps=5)
    assert spent == Spent(seconds=10.0, data_seconds=4.0, network_seconds=0.0)


def train() -> float:
    """A few steps; returns the seconds a step that torch says were waited for gradients."""
    model = wrap(nn.Linear(8, 8), torch.device("cpu"))
    assert isinstance(model, DistributedDataParallel)
    assert exposed_seconds(model) == 0.0
    for _ in range(3):
        model.zero_grad(set_to_none=True)
        model(torch.ones(2, 8)).sum().backward()
    return exposed_seconds(model)


def test_torch_times_the_gradients_that_travel_alone() -> None:
    assert all(seconds > 0 for seconds in run_ranks(train, 2))


def an_epoch(exposed: list[float], data_seconds: list[float]) -> Spent:
    """Of an epoch of 8 steps in 10 seconds, in which each rank waited for as long as is given."""
    model = wrap(nn.Linear(2, 2), torch.device("cpu"))
    timed = {"avg_backward_comm_time": 1e9 * (exposed[rank()] + 3), "avg_backward_compute_comm_overlap_time": 3e9}
    model._get_ddp_logging_data = lambda: timed  # type: ignore[assignment, method-assign]
    return spent_in_epoch(model, seconds=10.0, data_seconds=data_seconds[rank()], num_steps=8)


@pytest.mark.parametrize(
    ("exposed", "data_seconds", "network", "bound"),
    [
        ([0.5, 0.5], [0.0, 0.0], 4.0, "network"),
        ([0.5, 0.001], [0.0, 0.0], 0.008, "compute"),  # the fast rank waits for one that computes for longer
        ([0.5, 0.001], [0.0, 4.0], 0.008, "data"),  # ... for one that waits for data
        ([1.0, 1.0], [0.0, 8.0], 2.0, "data"),  # no more than there is beside
    ],
)
def test_waiting_for_a_slower_rank_is_not_the_network(
    exposed: list[float], data_seconds: list[float], network: float, bound: str
) -> None:
    first, second = run_ranks(an_epoch, 2, exposed, data_seconds)
    assert first == second, "every rank has the figures of all"
    assert (first.seconds, first.data_seconds, first.bound) == (10.0, max(data_seconds), bound)
    assert first.network_seconds == pytest.approx(network)
