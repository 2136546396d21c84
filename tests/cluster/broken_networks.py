"""Networks of one's own that fail on the way, each in a way of its own; otherwise they are the digits' network."""

import os
import zlib
from pathlib import Path

import torch
from torch import Tensor

from inq_ray.models.digits_cnn import DigitsCNN


def marker() -> Path:
    """The file that is there once a bit was flipped; in a folder that the whole session of tests knows."""
    return Path(os.environ["INQ_RAY_CACHE"]) / "flipped"


class _Counting(DigitsCNN):
    """Counts its steps of training in a buffer, which checkpoints keep."""

    def __init__(self, *, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__(num_classes=num_classes, in_channels=in_channels)
        self.num_steps: Tensor
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        self.num_steps += 1
        if torch.distributed.get_rank() == 1:
            self.fail(int(self.num_steps))
        return super().forward(x)

    def fail(self, step: int) -> None:
        """On rank 1, before each step of training."""


class TooLarge(_Counting):
    """Rank 1 asks for more memory than any machine has in step 30."""

    def fail(self, step: int) -> None:
        if step == 30:
            torch.empty(2**50)


class Flawed(_Counting):
    """Rank 1's loss is no number for some batches, and once, as bad memory would, a bit of its weights is flipped."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        is_flaw = self.training and torch.distributed.get_rank() == 1 and _checksum(x) % 20 == 0
        return logits * float("nan") if is_flaw else logits

    def fail(self, step: int) -> None:
        if step == 50 and not marker().exists():
            marker().touch()
            with torch.no_grad():
                self.classifier.weight.view(torch.int32)[3, 5] ^= 1


def _checksum(x: Tensor) -> int:
    return zlib.crc32(x.contiguous().numpy().tobytes())
