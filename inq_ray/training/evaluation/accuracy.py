"""Accuracy and loss on a set."""

from dataclasses import dataclass

# Largest number of classes for which top-5 is always 100 %.
_ALL_IN_TOP5 = 5


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

    def in_words(self, num_classes: int) -> str:
        """Return top-1, top-5 if it can be less than 100 %, and the number of images."""
        return f"{percentages(self.top1, self.top5, num_classes)} of {self.num_samples:,} images"


def percentages(top1: float, top5: float, num_classes: int) -> str:
    """Return top-1 as text, and top-5 if it can be less than 100 %.

    Args:
        top1: Percent.
        top5: Percent.
        num_classes: Number of classes.
    """
    return f"top-1 {top1:.2f} %" + (f", top-5 {top5:.2f} %" if num_classes > _ALL_IN_TOP5 else "")
