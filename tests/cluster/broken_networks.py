"""Networks of one's own that fail on the way, each in a way of its own; otherwise they are the digits' network."""

import os
from pathlib import Path

import torch
from torch import Tensor

from inq_ray.models.digits_cnn import DigitsCNN

# The file that is there once a bit was flipped: in the environment, as networks take no arguments.
MARKER = "INQ_RAY_TEST_MARKER"


class _Counting(DigitsCNN):
    """Counts its steps of training in a buffer, which checkpoints keep."""

    def __init__(self, *, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__(num_classes=num_classes, in_channels=in_channels)
        self.num_steps: Tensor
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_steps += 1
            return self.broken(super().forward(x), int(self.num_steps))
        return super().forward(x)

    def broken(self, logits: Tensor, step: int) -> Tensor:
        raise NotImplementedError


class NotANumber(_Counting):
    """Rank 1's loss is no number in steps 30 and 31."""

    def broken(self, logits: Tensor, step: int) -> Tensor:
        return logits * float("nan") if step in (30, 31) and torch.distributed.get_rank() == 1 else logits


class TooLarge(_Counting):
    """Rank 1 asks for more memory than any machine has in step 30."""

    def broken(self, logits: Tensor, step: int) -> Tensor:
        if step == 30 and torch.distributed.get_rank() == 1:
            torch.empty(2**50)
        return logits


class OneBit(_Counting):
    """One bit of one weight of rank 1 is flipped in step 30: once, as bad memory would."""

    def broken(self, logits: Tensor, step: int) -> Tensor:
        marker = Path(os.environ[MARKER])
        if step == 30 and torch.distributed.get_rank() == 1 and not marker.exists():
            marker.touch()
            with torch.no_grad():
                self.classifier.weight.view(torch.int32)[3, 5] ^= 1
        return logits
