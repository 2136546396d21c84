import time
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from inq_ray.distributed.wire import rank
from inq_ray.training.loop.time_spent import Spent, Waiting, exposed_seconds, spent_in_epoch
from inq_ray.training.task.wrapping import wrap
from tests.ranks import run_ranks


@pytest.mark.parametrize(
    ("data", "network", "bound", "parts"),
    [
        (1.0, 4.0, "compute", ["bound by compute: waited 1 % for data, 4 % for gradients"]),
        (9.9, 9.9, "compute", []),
        (0.0, 0.0, "compute", []),
        (10.0, 0.0, "data", ["10 % for data", "--loader-workers", "--cpus-per-worker"]),
        (37.0, 20.0, "data", ["37 %"]),
        (5.0, 60.0, "network", ["60 % for gradients", "--batch-size", "--accumulate"]),
    ],
)
def test_the_verdict_names_what_was_waited_for_and_what_to_do(
    data: float, network: float, bound: str, parts: list[str]
) -> None:
    spent = Spent(seconds=100.0, data_seconds=data, network_seconds=network)
    assert spent.bound == bound
    line = str(spent)
    assert line.startswith(f"bound by {bound}: ")
    assert "\n" not in line
    assert all(part in line for part in parts)
    assert (";" in line) == (bound != "compute")


def test_nothing_trained_is_bound_by_nothing_else() -> None:
    assert Spent().bound == "compute"
    assert "waited 0 % for data" in str(Spent())


@given(st.lists(st.tuples(*[st.floats(0.0, 1e6)] * 3), max_size=5))
def test_epochs_add_up(epochs: list[tuple[float, float, float]]) -> None:
    spent = sum(
        (Spent(seconds=sum(each), data_seconds=each[1], network_seconds=each[2]) for each in epochs), start=Spent()
    )
    assert spent.seconds == pytest.approx(sum(map(sum, epochs)))
    assert spent.data_seconds == pytest.approx(sum(each[1] for each in epochs))
    assert 0 <= spent.data_share + spent.network_share <= 1 + 1e-9


def slow_batches() -> Iterator[int]:
    for number in range(3):
        time.sleep(0.02)
        yield number
    time.sleep(0.02)


def test_waiting_is_timed_and_what_is_done_with_a_batch_is_not() -> None:
    waiting = Waiting(slow_batches())
    began = time.perf_counter()
    numbers = []
    for number in waiting:
        numbers.append(number)
        time.sleep(0.05)
    total = time.perf_counter() - began
    assert numbers == [0, 1, 2]
    assert 0.08 <= waiting.seconds <= total - 0.15


def test_one_rank_waits_for_no_gradients() -> None:
    assert exposed_seconds(nn.Linear(2, 2)) == 0.0
    spent = spent_in_epoch(nn.Linear(2, 2), seconds=10.0, data_seconds=4.0, num_steps=5)
    assert spent == Spent(seconds=10.0, data_seconds=4.0, network_seconds=0.0)


def train(width: int, rows: int, slow_rank: int | None, slow_data: bool) -> tuple[Spent, float, float]:
    """A few steps; returns the time of all ranks, this rank's own exposed seconds, and seconds a step."""
    torch.manual_seed(0)
    model = wrap(nn.Sequential(*[nn.Linear(width, width) for _ in range(6)]), torch.device("cpu"))
    images = torch.randn(rows, width)
    assert isinstance(model, DistributedDataParallel)
    assert exposed_seconds(model) == 0.0

    def batches() -> Iterator[torch.Tensor]:
        for _ in range(8):
            if slow_data and rank() == slow_rank:
                time.sleep(0.05)
            yield images

    waiting = Waiting(batches())
    began = time.perf_counter()
    for batch in waiting:
        if not slow_data and rank() == slow_rank:
            time.sleep(0.05)
        model.zero_grad(set_to_none=True)
        model(batch).sum().backward()
    seconds = time.perf_counter() - began
    spent = spent_in_epoch(model, seconds=seconds, data_seconds=waiting.seconds, num_steps=8)
    return spent, exposed_seconds(model), seconds / 8


def test_gradients_that_travel_alone_are_seen() -> None:
    answers = run_ranks(train, 2, 700, 1, None, False)
    assert answers[0][0] == answers[1][0], "every rank has the figures of all"
    spent, exposed, step = answers[0]
    assert 0 < exposed < step
    assert spent.network_share > 0.1
    assert spent.bound == "network"


@pytest.mark.parametrize("slow_data", [True, False])
def test_waiting_for_a_slower_rank_is_not_the_network(slow_data: bool) -> None:
    answers = run_ranks(train, 2, 20, 8, 1, slow_data)
    spent, waited = answers[0][0], answers[0][1] * 8
    assert waited > 0.2, "the fast rank waits for the slow one"
    assert spent.network_seconds < waited / 2
    assert spent.bound != "network"
    assert (spent.data_share > 0.5) == slow_data
