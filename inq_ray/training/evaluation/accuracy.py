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
        num_top1_renamed: `num_top1` if the classes of `renamed` are exchanged; None = not checked, or not much better.
        renamed: Classes in another order than the network's: pairs of label and predicted class.
    """

    num_samples: int
    num_top1: int
    num_top5: int
    loss: float
    num_top1_renamed: int | None = None
    renamed: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Convert the lists that come from JSON to tuples."""
        object.__setattr__(self, "renamed", tuple((label, other) for label, other in self.renamed))

    @property
    def top1(self) -> float:
        """Percent."""
        return 100 * self.num_top1 / self.num_samples

    @property
    def top5(self) -> float:
        """Percent."""
        return 100 * self.num_top5 / self.num_samples
