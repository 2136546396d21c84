"""What reset_lr_scheduler takes; that it starts schedules again is in tests/test_scheduler.py."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

import inq_ray


class Wrapped:
    def __init__(self, **inner: Any) -> None:
        self.__dict__.update(inner)


def test_a_wrapped_scheduler_is_taken() -> None:
    optimizer = inq_ray.SGD([nn.Parameter(torch.ones(2))], lr=0.5)
    scheduler = StepLR(optimizer, 1)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    inq_ray.reset_lr_scheduler(Wrapped(scheduler=Wrapped(scheduler=scheduler)))  # type: ignore[arg-type]
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("other", [Wrapped(), Wrapped(optimizer=None), None, {"scheduler": None}])
def test_another_librarys_scheduler_is_refused_with_what_to_do(other: Any) -> None:
    with pytest.raises(ValueError, match=r"torch\.optim\.lr_scheduler.* for timm's call scheduler\.step\(0\)"):
        inq_ray.reset_lr_scheduler(other)
