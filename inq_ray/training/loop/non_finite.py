"""Detection of steps whose loss or gradient is not finite.

All ranks must detect the same steps without communicating. A loss that is not finite makes its gradient NaN (see
:func:`propagate_nonfinite`), DDP sums the gradients, and so the norm of their sum is finite on all ranks or on none.

The cost is one more pass over the gradient (7 ms for ResNet-18's 47 MB on one CPU core, whose steps take seconds). On a
GPU the result has to be waited for; with ``stop`` this is done every CHECK_INTERVAL_STEPS steps and before a
checkpoint, not after each step. ``skip`` and ``rewind`` need it before the weights are updated, and wait at each step.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

# With --on-nan stop: steps between checks on a GPU.
CHECK_INTERVAL_STEPS = 50
# With --on-nan skip: consecutive steps that may be skipped; with one more the run stops.
MOST_IN_A_ROW = 10
# With --on-nan rewind: how often a stage may begin again.
MOST_REWINDS = 3
# Factor of the learning rate, for each rewind.
REWIND_FACTOR = 0.5


class DivergedError(RuntimeError):
    """A loss or its gradient is not finite; raised on every rank at once.

    Attributes:
        stage: Stage in training; 0 during float training.
        what: What is not finite, and where.
        advice: Remedy.
    """

    def __init__(self, stage: int, what: str, advice: str) -> None:
        self.stage = stage
        self.what = what
        self.advice = advice
        super().__init__(f"{what}: {advice}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.stage, self.what, self.advice)


@dataclass
class Faults:
    """Faults of a run; the same on every rank.

    Attributes:
        num_skipped: Number of skipped steps.
        in_a_row: Number of skipped steps just before this one.
        rewinds: Stages that began again, one entry each time.
    """

    num_skipped: int = 0
    in_a_row: int = 0
    rewinds: tuple[int, ...] = ()

    def lr_factor(self, stage: int) -> float:
        """Return the factor of a stage's learning rate after its rewinds."""
        return float(REWIND_FACTOR ** self.rewinds.count(stage))


class NonFiniteMonitor:
    """Steps not yet checked for finite values; checking waits for the device once for all of them."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, int, Tensor]] = []

    def __len__(self) -> int:
        return len(self._steps)

    def note(self, epoch: int, step: int, finite: Tensor) -> None:
        """Add the result of :func:`is_finite` for a step."""
        self._steps.append((epoch, step, finite))

    def first_fault(self) -> tuple[int, int] | None:
        """Return epoch and step of the first step since the last call that was not finite; None if all were."""
        steps, self._steps = self._steps, []
        if not steps:
            return None
        answers = torch.stack([finite for _, _, finite in steps]).tolist()
        faults = [(epoch, step) for (epoch, step, _), finite in zip(steps, answers, strict=True) if not finite]
        return faults[0] if faults else None


def propagate_nonfinite(loss: Tensor) -> Tensor:
    """Return the loss (float []) with a NaN gradient if it is not finite: infinite losses can have finite gradients.

    A finite loss is multiplied by 1.0, which keeps the bits of the loss and its gradient.
    """
    return loss * torch.where(loss.detach().isfinite(), 1.0, float("nan"))


def is_finite(params: Iterable[Tensor]) -> Tensor:
    """Return whether the gradient's norm is finite, including frozen weights: bool [], on the parameters' device."""
    gradients = [param.grad for param in params if param.grad is not None]
    return get_total_norm(gradients).isfinite()
