"""When the next checkpoint is due: all ranks must find the same answer, and none may wait for it at every step."""

import time

import torch

from inq_ray.distributed.replica import of_rank_0

_SECONDS = {"s": 1, "m": 60, "h": 3600}
# Steps after which a new clock asks rank 0 for the first time, and the most after which any does.
_FIRST_STEPS = 4
_MOST_STEPS = 1000


class CheckpointClock:
    """Counts steps, or time by rank 0's watch.

    Where time counts, rank 0 tells all ranks after how many steps it will be looked at its watch again: in as many as
    the time that is left takes, by the speed since the last look.

    Args:
        every: "500" steps, or a time: "30s", "10m", "2h".
    """

    def __init__(self, every: str) -> None:
        unit = _SECONDS.get(every[-1])
        self._steps = None if unit else int(every)
        self._seconds = float(int(every[:-1]) * unit) if unit else 0.0
        self._left = self._steps or _FIRST_STEPS
        self._taken = self._looked = time.monotonic()
        self._between = self._left

    def is_due(self) -> bool:
        """To be called by every rank after each step; the same on all of them."""
        self._left -= 1
        if self._left > 0:
            return False
        if self._steps is not None:
            self._left = self._steps
            return True
        now = time.monotonic()
        step_seconds = max(now - self._looked, 1e-6) / self._between
        is_due = now - self._taken >= self._seconds
        left = self._seconds if is_due else self._seconds - (now - self._taken)
        steps = min(_MOST_STEPS, max(1, round(left / step_seconds)))
        due, self._between = of_rank_0(torch.tensor([int(is_due), steps])).tolist()
        self._left, self._looked = self._between, now
        if due:
            self._taken = now
        return bool(due)
