"""Choice of the gradients that ranks exchange: all, or those of live weights only, by the time of a step with each."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from inq_ray.distributed.gradients import LiveGradients
from inq_ray.distributed.replica import largest

GradientChoice = Literal["dense", "live"]

# Steps at the beginning of a phase that are timed: with all gradients and with those of live weights, in turns.
TRIAL_STEPS = 6


@dataclass(frozen=True, kw_only=True)
class GradientTimes:
    """Times of forward and backward passes on the slowest rank; the same on every rank.

    Attributes:
        dense_seconds: Of each step that sends all gradients.
        live_seconds: Of each step right after it, which sends those of live weights only.
    """

    dense_seconds: tuple[float, ...]
    live_seconds: tuple[float, ...]

    @property
    def choice(self) -> GradientChoice:
        """What to send: gradients of live weights only if that was faster each time, because noise is no reason."""
        pairs = [*zip(self.live_seconds, self.dense_seconds, strict=True)]
        return "live" if pairs and all(live < dense for live, dense in pairs) else "dense"

    def __str__(self) -> str:
        """Return the choice and the reason."""
        what = "of live weights only" if self.choice == "live" else "of all weights"
        if not self.live_seconds:
            return f"workers exchange gradients {what}: the run was interrupted while it measured"
        times = f"{1000 * min(self.live_seconds):.4g} ms, with all {1000 * min(self.dense_seconds):.4g} ms"
        return f"workers exchange gradients {what}: passes with those of live weights only take {times}"


class GradientTrial:
    """Times the first steps of a phase, which send all gradients and those of live weights only, in turns.

    They are steps of the training itself, so a trial costs nothing but the difference of three steps. What a step sends
    depends on its number alone: a run that continues within the trial has the same bits if the choice is the same.

    Args:
        live: Communication hook of the model, which knows its positions; sends what was chosen afterwards.
        device: Device of the model.
        start: Steps of the phase that are done.
        on_choice: Called once on every rank, after the last step of the trial.
    """

    def __init__(
        self, live: LiveGradients, device: torch.device, start: int, on_choice: Callable[[GradientTimes], None]
    ) -> None:
        self._live, self._device, self._on_choice = live, device, on_choice
        self._num_done = start
        self._first_pair = -(-start // 2)  # the first one with both steps timed
        self._seconds = torch.zeros(TRIAL_STEPS, dtype=torch.float64)

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Time the passes of a step, and choose after the last one; every rank calls it for each step of the phase."""
        if self._num_done >= TRIAL_STEPS:
            yield
            return
        self._live.is_on = self._num_done % 2 == 1
        began = _now(self._device)
        yield
        self._seconds[self._num_done] = _now(self._device) - began
        self._num_done += 1
        if self._num_done == TRIAL_STEPS:
            self._choose()

    def _choose(self) -> None:
        pairs = largest(self._seconds).reshape(-1, 2)[self._first_pair :]
        dense_seconds, live_seconds = pairs.T.tolist()
        times = GradientTimes(dense_seconds=tuple(dense_seconds), live_seconds=tuple(live_seconds))
        self._live.is_on = times.choice == "live"
        self._on_choice(times)


def _now(device: torch.device) -> float:
    """Return the time in seconds when the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
