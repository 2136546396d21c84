"""What is done to images: how a network wants to see them (Preset), and what training does to them (Policy)."""

import math
import typing
from dataclasses import dataclass
from typing import Literal

Interpolation = Literal["bilinear", "bicubic", "nearest"]
AutoAugment = Literal["none", "randaugment", "trivialaugment", "autoaugment", "augmix"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LARGEST_SIZE = 4096


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How a network wants to see images, as the weights of torchvision state it; the defaults are those of ResNet.

    Attributes:
        crop_size: Pixels of the square that validation cuts out of the middle.
        resize_size: Pixels of the shorter side that validation resizes to, before.
        train_crop_size: Pixels of the square that training sees; None = crop_size.
        interpolation: Of all resizing.
        mean: Of each channel (red, green, blue), of images scaled to [0, 1].
        std: Of each channel, likewise.

    Raises:
        ValueError: One of them is not possible.
    """

    crop_size: int = 224
    resize_size: int = 256
    train_crop_size: int | None = None
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name in ("crop_size", "resize_size", "train_crop_size"):
            size = getattr(self, name)
            if not (size is None and name == "train_crop_size"):
                _check_size(name, size)
        _check_choice("interpolation", self.interpolation, Interpolation)
        for name in ("mean", "std"):
            object.__setattr__(self, name, _check_channels(name, getattr(self, name)))
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0 in every channel, got {self.std}")

    @property
    def train_size(self) -> int:
        """Pixels of the square that training sees."""
        return self.crop_size if self.train_crop_size is None else self.train_crop_size


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What training does to images, in the order of torchvision's reference: crop, flip, auto-augment, erase.

    Attributes:
        auto_augment: Which of torchvision's automatic augmentations, with the settings of its reference; "none" = none.
        random_erasing: Probability in [0, 1] that a rectangle is replaced by the mean colour.
        flip: Whether half of the images are mirrored left to right.
        scale: Smallest and largest part of the image's area that a random crop may cover, in (0, 1].
        ratio: Smallest and largest width / height of a random crop, before it is resized to a square.

    Raises:
        ValueError: One of them is not possible.
    """

    auto_augment: AutoAugment = "none"
    random_erasing: float = 0.0
    flip: bool = True
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        _check_choice("auto_augment", self.auto_augment, AutoAugment)
        if not 0 <= self.random_erasing <= 1:
            raise ValueError(f"random_erasing must be a probability in [0, 1], got {self.random_erasing}")
        for name in ("scale", "ratio"):
            object.__setattr__(self, name, _check_range(name, getattr(self, name)))
        if self.scale[1] > 1:
            raise ValueError(f"scale must be parts of the image's area, up to 1, got {self.scale}")

    @property
    def changes_pixels(self) -> bool:
        """Whether it does more than crop and flip."""
        return self.auto_augment != "none" or self.random_erasing > 0


def _check_size(name: str, size: object) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= LARGEST_SIZE:
        raise ValueError(f"{name} must be a whole number of pixels from 1 to {LARGEST_SIZE}, got {size}")


def _check_choice(name: str, value: str, choices: object) -> None:
    allowed = typing.get_args(choices)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _check_channels(name: str, values: tuple[float, ...]) -> tuple[float, ...]:
    """Return the three values as floats."""
    if len(values) != 3 or not all(math.isfinite(value) for value in values):
        raise ValueError(f"{name} must be three numbers, of red, green and blue, got {values}")
    return tuple(map(float, values))


def _check_range(name: str, values: tuple[float, ...]) -> tuple[float, float]:
    """Return the two values as floats."""
    if len(values) != 2 or not 0 < values[0] <= values[1] < math.inf:
        raise ValueError(f"{name} must be two numbers above 0, the smaller one first, got {values}")
    return float(values[0]), float(values[1])
