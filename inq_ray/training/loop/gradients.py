"""Choice of the gradients that ranks exchange: all, or those of live weights only, by the time of a pass with each."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from inq_ray.distributed.gradients import LiveGradients
from inq_ray.distributed.replica import largest

GradientChoice = Literal["dense", "live"]

# Pairs of passes that are timed.
_NUM_PAIRS = 3


@dataclass(frozen=True, kw_only=True)
class GradientTimes:
    """Times of forward and backward passes on the slowest rank; the same on every rank.

    Attributes:
        dense_seconds: Of each pass that sends all gradients.
        live_seconds: Of each pass right after it, which sends those of live weights only.
    """

    dense_seconds: tuple[float, ...]
    live_seconds: tuple[float, ...]

    @property
    def choice(self) -> GradientChoice:
        """What to send: gradients of live weights only if that was faster each time, because noise is no reason."""
        pairs = zip(self.live_seconds, self.dense_seconds, strict=True)
        return "live" if all(live < dense for live, dense in pairs) else "dense"

    def __str__(self) -> str:
        """Return the choice and the reason."""
        what = "of live weights only" if self.choice == "live" else "of all weights"
        times = f"{1000 * min(self.live_seconds):.4g} ms, with all {1000 * min(self.dense_seconds):.4g} ms"
        return f"workers exchange gradients {what}: a pass with those of live weights only takes {times}"


def compare(live: LiveGradients, run_pass: Callable[[], object], device: torch.device) -> GradientTimes:
    """Time passes that send all gradients and those of live weights only, in turns; every rank calls it.

    Args:
        live: Communication hook of the model; sends either afterwards.
        run_pass: Function that runs a forward and a backward pass.
        device: Device of the model.
    """
    live.is_on = True
    run_pass()  # which finds the positions
    seconds = torch.zeros(_NUM_PAIRS, 2, dtype=torch.float64)
    for pair in seconds:
        for place, live.is_on in enumerate((False, True)):
            pair[place] = _seconds(run_pass, device)
    dense_seconds, live_seconds = largest(seconds).T.tolist()
    return GradientTimes(dense_seconds=tuple(dense_seconds), live_seconds=tuple(live_seconds))


def _seconds(run_pass: Callable[[], object], device: torch.device) -> float:
    """Return the time of a pass until the device has finished it."""
    began = time.perf_counter()
    run_pass()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
