"""Accuracy and loss on a set."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Sums over a set.

    Attributes:
        num_samples: Number of images.
        num_top1: Number of images whose label has the largest logit.
        num_top5: Number of images whose label is among the five largest.
        loss: Mean cross-entropy.
    """

    num_samples: int
    num_top1: int
    num_top5: int
    loss: float

    @property
    def top1(self) -> float:
        """Percent."""
        return 100 * self.num_top1 / self.num_samples

    @property
    def top5(self) -> float:
        """Percent."""
        return 100 * self.num_top5 / self.num_samples
