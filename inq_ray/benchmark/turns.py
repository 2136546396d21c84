"""Timing of alternatives in turns, so that other load on the machine affects all of them alike."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from inq_ray.distributed.replica import largest


class Case(NamedTuple):
    """One alternative: `prepare` makes the argument of `run`, and is not timed."""

    run: Callable[[Any], object]
    prepare: Callable[[], Any] = lambda: None


def take_turns(
    cases: Mapping[str, Case], num_rounds: int, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of each case by round, after an unmeasured warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_ in range(num_rounds + 1):
        for name, case in cases.items():
            prepared = case.prepare()
            start = clock()
            case.run(prepared)
            if round_ > 0:
                seconds[name].append(clock() - start)
    return seconds


def together(run: Callable[[], object], device: torch.device) -> Case:
    """Return a case that begins and ends on all ranks at once, so that each of them measures the slowest.

    Args:
        run: Function that every rank calls.
        device: Device on which it computes.
    """

    def begin() -> None:
        meet(device)

    def work(_: None) -> None:
        run()
        meet(device)

    return Case(work, begin)


def meet(device: torch.device) -> None:
    """Wait for the device and for all ranks."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    largest(torch.zeros(1, device=device))
