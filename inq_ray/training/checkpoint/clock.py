"""Clock of a run: when the next checkpoint is due, and whether to stop after it.

All ranks must get the same answer, without waiting for it at every step.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from inq_ray.distributed.replica import largest
from inq_ray.distributed.wire import rank
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.config.duration import is_duration, seconds_of

# Steps until a new clock's first look, and maximum number of steps between looks.
_FIRST_STEPS = 4
_MOST_STEPS = 1000
# Approximate time between looks: a run that is asked to stop continues for this long.
_LOOK_SECONDS = 1.0


class Look(NamedTuple):
    """Result of a look; the same on every rank.

    Attributes:
        is_due: Whether a checkpoint is due.
        is_asked: Whether a rank was asked to stop.
    """

    is_due: bool
    is_asked: bool


class StopError(Exception):
    """The run was asked to stop and has left a checkpoint; raised on every rank at once.

    Attributes:
        position: Position to continue from; None = from where it was started, because nothing was done since.
    """

    def __init__(self, position: TrainingPosition | None) -> None:
        self.position = position
        super().__init__(f"stopped at {position.name}" if position else "stopped before its first step")

    def __reduce__(self) -> tuple[type["StopError"], tuple[TrainingPosition | None]]:
        return type(self), (self.position,)


class CheckpointClock:
    """Counter of steps, or of time by rank 0's clock, that checks about once a second whether to stop.

    At each look rank 0 sends all ranks the number of steps until the next one, by the speed since the last: one small
    message per second, and none at the other steps.

    Args:
        every: "500" steps, or a time: "30s", "10m", "2h".
        is_asked: Returns whether this rank has been asked to stop, without waiting.
    """

    def __init__(self, every: str, is_asked: Callable[[], bool] = lambda: False) -> None:
        is_time = is_duration(every)
        self._steps = None if is_time else int(every)
        self._seconds = float(seconds_of(every)) if is_time else 0.0
        self._is_asked = is_asked
        self._left_to_due = self._steps or 0
        self._left_to_look = self._between = _FIRST_STEPS
        self._taken = self._looked = time.monotonic()

    def tick(self) -> Look:
        """Count a step; every rank calls it after each step."""
        is_due = False
        if self._steps is not None:
            self._left_to_due -= 1
            is_due = self._left_to_due == 0
            self._left_to_due = self._left_to_due or self._steps
        self._left_to_look -= 1
        if self._left_to_look > 0:
            return Look(is_due, is_asked=False)
        look = self._look()
        return Look(is_due or look.is_due, look.is_asked)

    def look(self) -> bool:
        """Return whether to stop; every rank calls it at the same position, between epochs."""
        return bool(largest(torch.tensor([int(self._is_asked())])).item())

    def _look(self) -> Look:
        now = time.monotonic()
        step_seconds = max(now - self._looked, 1e-6) / self._between
        is_due = self._steps is None and now - self._taken >= self._seconds
        pause = _LOOK_SECONDS
        if self._steps is None:
            pause = min(pause, self._seconds if is_due else self._seconds - (now - self._taken))
        steps = min(_MOST_STEPS, max(1, round(pause / step_seconds)))
        of_rank_0 = [int(is_due), steps] if rank() == 0 else [0, 0]
        due, self._between, asked = largest(torch.tensor([*of_rank_0, int(self._is_asked())])).tolist()
        self._left_to_look, self._looked = self._between, now
        if due:
            self._taken = now
        return Look(bool(due), bool(asked))
