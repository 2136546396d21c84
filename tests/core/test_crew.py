"""Work that threads divide."""

import multiprocessing
import threading
import warnings
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.core.crew import run_on_threads, shares


@given(st.lists(st.integers(0, 200), max_size=8), st.integers(1, 6))
def test_shares_hold_every_element_once_and_are_alike(counts: list[int], num_shares: int) -> None:
    divided = shares(counts, num_shares)
    assert len(divided) == num_shares
    elements = [(which, at) for share in divided for which, start, stop in share for at in range(start, stop)]
    assert elements == [(which, at) for which, count in enumerate(counts) for at in range(count)]
    sizes = [sum(stop - start for _, start, stop in share) for share in divided]
    assert max(sizes) <= -(-sum(counts) // num_shares)
    assert all(start < stop for share in divided for _, start, stop in share)


def meet(barrier: threading.Barrier, met: list[str]) -> None:
    barrier.wait(timeout=30)
    met.append(threading.current_thread().name)


@pytest.mark.parametrize("number", [1, 2, 4, 3])
def test_tasks_run_at_once(number: int) -> None:
    barrier, met = threading.Barrier(number), list[str]()
    run_on_threads([partial(meet, barrier, met)] * number)
    assert len(set(met)) == number
    assert threading.current_thread().name in met


def fail() -> None:
    raise RuntimeError("in a share")


def test_what_goes_wrong_on_a_thread_is_raised() -> None:
    with pytest.raises(RuntimeError, match="in a share"):
        run_on_threads([lambda: None, fail])


def in_child(answers: "multiprocessing.queues.Queue[int]") -> None:
    met: list[str] = []
    run_on_threads([partial(meet, threading.Barrier(2), met)] * 2)
    answers.put(len(met))


def test_a_process_that_is_forked_off_has_threads_of_its_own() -> None:
    run_on_threads([lambda: None] * 2)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: forking beside threads
        child = context.Process(target=in_child, args=(answers,))
        child.start()
    try:
        assert answers.get(timeout=30) == 2
        child.join(timeout=30)
        assert child.exitcode == 0
    finally:
        child.kill()
