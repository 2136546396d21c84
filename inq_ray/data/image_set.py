"""What a source of data hands out: facts about it, and decoded images with labels."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """Facts about a source, known without decoding it.

    Attributes:
        name: How users call it: "digits", or the path.
        num_classes: Labels are 0 to num_classes - 1.
        class_names: One for each class.
        channels: 1 or 3.
        height: Pixels.
        width: Pixels.
        num_train: Number of training images; 0 = only tested on.
        num_test: Number of test images.
        mean: Of each channel, to normalize images scaled to [0, 1].
        std: Of each channel, likewise.
        fingerprint: Hex digest of what the data are, wherever they lie: equal on all nodes that hold the same files.
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


@dataclass(frozen=True)
class ImageSet:
    """One split, decoded. Both tensors may be read-only mappings of a file: copy before writing.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)
