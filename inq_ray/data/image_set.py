"""What a source of data hands out: facts about it, and sets of images with labels, in memory or read when asked for."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """Facts about a source, known without decoding it.

    Attributes:
        name: How users call it: a name, a path or an address.
        num_classes: Labels are 0 to num_classes - 1.
        class_names: One for each class.
        channels: 1 or 3.
        height: Pixels of what a network is given in validation.
        width: Pixels, likewise.
        num_train: Number of training images; 0 = only tested on.
        num_test: Number of test images; 0 = accuracy can only be measured on training images held out.
        mean: Of each channel, to normalize images scaled to [0, 1].
        std: Of each channel, likewise.
        fingerprint: Hex digest of what the data are, wherever they lie: equal on all nodes that hold the same files.
        is_streamed: Whether images are read and decoded when they are asked for, so that loader workers pay.
        is_grouped: Whether they are read in groups then, and shuffled in a buffer.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    channels: int
    height: int
    width: int
    num_train: int
    num_test: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    is_streamed: bool = False
    is_grouped: bool = False


class BadImage(NamedTuple):
    """An image that could not be read.

    Attributes:
        sample: Its number in its set.
        name: Its file, with the row where a file holds many.
        reason: What is wrong with it.
    """

    sample: int
    name: str
    reason: str


class Samples(NamedTuple):
    """What a set hands out for some samples, in their order, those left out that could not be read.

    Attributes:
        images: uint8 [n, C, H, W], not normalized; new memory.
        labels: int64 [n].
        bad: Those left out.
    """

    images: Tensor
    labels: Tensor
    bad: tuple[BadImage, ...] = ()


class Images(Protocol):
    """A split. What it hands out depends on its arguments alone."""

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Boundaries of samples that are read together, int64 [G + 1]; None = every order costs the same."""
        ...

    def __len__(self) -> int: ...

    def fetch(self, samples: Tensor, augment: tuple[int, int] | None) -> Samples:
        """Read, decode and transform some samples.

        Args:
            samples: int64 [n], their numbers.
            augment: Seed and epoch for training; None = as in validation.
        """
        ...


class Source(Protocol):
    """Two splits of images and facts about them."""

    @property
    def info(self) -> SourceInfo:
        """Facts, known without decoding."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What users should know of the data, a line each."""
        ...

    def peek(self, split: Split) -> Samples:
        """Read and decode a few images of a split, as in validation: what cannot be read is found before a run starts.

        Raises:
            ValueError: There is no such split, or it cannot be read.
        """
        ...

    def split(self, split: Split) -> Images:
        """Return the images of "train" or "test".

        Raises:
            ValueError: There is no such split, or it cannot be read.
        """
        ...
