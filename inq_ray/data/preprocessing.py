"""What is done to images: resizing and normalization that a network expects, and what training does to them."""

import typing
from dataclasses import dataclass
from typing import Literal

Interpolation = Literal["bilinear", "bicubic", "nearest"]
AutoAugment = Literal["none", "randaugment", "trivialaugment", "autoaugment", "augmix"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LARGEST_SIZE = 4096


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a network wants to see images, as the weights of torchvision state it; the defaults are those of ResNet.

    Attributes:
        crop_size: Pixels of the square that validation cuts out of the middle.
        resize_size: Pixels of the shorter side that validation resizes to, before.
        train_crop_size: Pixels of the square that training sees; None = crop_size.
        interpolation: Of all resizing.
        mean: Of each channel (red, green, blue), of images scaled to [0, 1].
        std: Of each channel, likewise.
        channels: 3 (gray images get three equal ones), or 1 (colours become gray); None = small images of one size that
            are all gray stay gray, all others get 3.
        is_sized: Whether a size was asked for, so that small images in folders are resized as large ones are.

    Raises:
        ValueError: A size or the interpolation, which weights may state, is not possible.
    """

    crop_size: int = 224
    resize_size: int = 256
    train_crop_size: int | None = None
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    channels: int | None = None
    is_sized: bool = False

    def __post_init__(self) -> None:
        for name in ("crop_size", "resize_size", "train_crop_size"):
            size = getattr(self, name)
            if size is not None and not 1 <= size <= LARGEST_SIZE:
                raise ValueError(f"{name} must be from 1 to {LARGEST_SIZE} pixels, got {size}")
        allowed = typing.get_args(Interpolation)
        if self.interpolation not in allowed:
            raise ValueError(f"interpolation must be one of {', '.join(allowed)}, got {self.interpolation!r}")
        for name in ("mean", "std"):  # of whole numbers torch would make integers
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))

    @property
    def train_size(self) -> int:
        """Pixels of the square that training sees."""
        return self.crop_size if self.train_crop_size is None else self.train_crop_size


def of_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return what is stated of red, green and blue; for gray images their mean."""
    return values if channels == 3 else (round(sum(values) / 3, 6),)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What training does to images, in the order of torchvision's reference: crop, flip, auto-augment, erase.

    Attributes:
        auto_augment: Which of torchvision's automatic augmentations, with the settings of its reference; "none" = none.
        random_erasing: Probability in [0, 1] that a rectangle is replaced by the mean colour.
        flip: Whether half of the images are mirrored left to right; None = those with colours, as gray ones may be of
            characters.
        scale: Smallest and largest part of the image's area that a random crop may cover, in (0, 1].
        ratio: Smallest and largest width / height of a random crop, before it is resized to a square.
    """

    auto_augment: AutoAugment = "none"
    random_erasing: float = 0.0
    flip: bool | None = None
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def flips(self, channels: int) -> bool:
        """Return whether half of the images of so many channels are mirrored."""
        return channels == 3 if self.flip is None else self.flip

    @property
    def changes_pixels(self) -> bool:
        """Whether it does more than crop and flip."""
        return self.auto_augment != "none" or self.random_erasing > 0
