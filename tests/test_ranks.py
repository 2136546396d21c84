"""The harness itself: results in order, the right exception, no hang."""

import os
import time

import pytest
import torch
import torch.distributed as dist

from tests.ranks import RankLostError, rank_outcomes, run_ranks


def add_ranks(offset: int) -> tuple[int, torch.Tensor]:
    total = torch.tensor([dist.get_rank() + offset])
    dist.all_reduce(total)
    return dist.get_rank(), total


def fail_on(failing: int) -> None:
    if dist.get_rank() == failing:
        raise LookupError(f"rank {failing} lost it")
    dist.barrier()


def sleep_on(sleeping: int) -> str:
    if dist.get_rank() == sleeping:
        time.sleep(600)
    return "awake"


def die() -> None:
    os._exit(3)


def return_a_function() -> object:
    return lambda: 0


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_results_come_by_rank(size: int) -> None:
    expected = size * 10 + sum(range(size))
    assert run_ranks(add_ranks, size, 10) == [(rank, torch.tensor([expected])) for rank in range(size)]


def test_the_first_failure_is_raised_not_what_follows_from_it() -> None:
    with pytest.raises(LookupError, match="rank 1 lost it") as caught:
        run_ranks(fail_on, 3, 1)
    assert "on rank 1 of 3" in caught.value.__notes__[0]
    assert "fail_on" in caught.value.__notes__[0]


def test_a_rank_that_hangs_is_ended() -> None:
    assert isinstance(rank_outcomes(sleep_on, 2, 1, timeout_seconds=2.0)[1].error, RankLostError)


def test_a_rank_that_dies_is_an_error() -> None:
    with pytest.raises(RankLostError, match="died"):
        run_ranks(die, 1)


def test_an_answer_that_does_not_pickle_is_an_error() -> None:
    with pytest.raises(TypeError, match="pickled"):
        run_ranks(return_a_function, 1)
