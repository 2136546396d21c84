"""Interface of data sources: facts, and sets of labeled images, in memory or read on demand."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """Facts about a source, known without decoding it.

    Attributes:
        name: Name, path or address, as the user gave it.
        num_classes: Number of classes; labels are 0 to num_classes - 1.
        class_names: Name of each class.
        channels: 1 or 3.
        height: Height of the network's input in validation, pixels.
        width: Width of the network's input in validation, pixels.
        num_train: Number of training images; 0 = the source can only be tested on.
        num_test: Number of test images; 0 = accuracy can only be measured on held-out training images.
        mean: Mean per channel, to normalize images scaled to [0, 1].
        std: Standard deviation per channel, likewise.
        fingerprint: Hex digest of the data: equal on all nodes that have the same files.
        is_streamed: Whether images are read and decoded on demand, so that loader workers help.
        is_grouped: Whether they are then read in groups, and shuffled in a buffer.
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
        sample: Its index in its set.
        name: Its file, with the row if a file has several images.
        reason: What is wrong with it.
    """

    sample: int
    name: str
    reason: str


class Samples(NamedTuple):
    """Requested samples of a set, in order, without those that could not be read.

    Attributes:
        images: uint8 [n, C, H, W], not normalized; new memory.
        labels: int64 [n].
        bad: The samples left out.
    """

    images: Tensor
    labels: Tensor
    bad: tuple[BadImage, ...] = ()


class Images(Protocol):
    """A split. Its results depend on the arguments alone."""

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Boundaries of samples that are read together, int64 [G + 1]; None = any order is equally fast."""
        ...

    def __len__(self) -> int: ...

    def fetch(self, samples: Tensor, augment: tuple[int, int] | None) -> Samples:
        """Read, decode and transform some samples.

        Args:
            samples: int64 [n], indices of the samples.
            augment: Seed and epoch for training; None = as in validation.
        """
        ...


@runtime_checkable
class DecodedByRank(Protocol):
    """A split whose images loader workers read, and the rank's own process decodes; it has those of `Images` too."""

    def read(self, samples: Tensor, augment: tuple[int, int] | None) -> Any:
        """Return what `decode` needs. Arguments are those of :meth:`Images.fetch`."""
        ...

    def decode(self, read: Any) -> Samples:
        """Return the samples; called by the rank's process."""
        ...


class Source(Protocol):
    """Two splits of images and facts about them."""

    @property
    def info(self) -> SourceInfo:
        """Facts, known without decoding."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines about the data, for the user."""
        ...

    def peek(self, split: Split) -> Samples:
        """Read and decode a few images of a split, as in validation, to find unreadable data before a run starts.

        Raises:
            ValueError: The split does not exist, or cannot be read.
        """
        ...

    def split(self, split: Split) -> Images:
        """Return the images of "train" or "test".

        Raises:
            ValueError: The split does not exist, or cannot be read.
        """
        ...
