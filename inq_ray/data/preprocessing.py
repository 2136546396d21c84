"""Settings of preprocessing and augmentation."""

import typing
from dataclasses import dataclass
from typing import Literal

Interpolation = Literal["bilinear", "bicubic", "nearest"]
AutoAugment = Literal["none", "randaugment", "trivialaugment", "autoaugment", "augmix"]
PaddingMode = Literal["constant", "edge", "reflect"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LARGEST_SIZE = 4096


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resizing and normalization that a network expects, as in torchvision's weights; the defaults are ResNet's.

    Attributes:
        crop_size: Side of the central crop for validation, pixels.
        resize_size: Shorter side after resizing, before the validation crop, pixels.
        train_crop_size: Side of the training images, pixels; None = crop_size.
        interpolation: Interpolation of all resizing.
        mean: Mean per channel (red, green, blue), for images scaled to [0, 1].
        std: Standard deviation per channel, likewise.
        channels: 3 (gray images get three equal ones) or 1 (colors become gray); None = 1 for small images of one size
            that are all gray, else 3.
        is_sized: Whether the user set a size, so that small images in folders are resized like large ones.

    Raises:
        ValueError: A size or the interpolation, which may come from weights, is not supported.
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
        for name in ("mean", "std"):  # torch would turn whole numbers into integers
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))

    @property
    def train_size(self) -> int:
        """Side of the training images, pixels."""
        return self.crop_size if self.train_crop_size is None else self.train_crop_size


def of_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return the values for red, green and blue; for gray images their mean."""
    return values if channels == 3 else (round(sum(values) / 3, 6),)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Augmentation for training, in the order of torchvision's reference: crop, flip, auto-augment, erase.

    Attributes:
        auto_augment: torchvision's auto-augmentation, with the settings of its reference; "none" = off.
        random_erasing: Probability in [0, 1] of replacing a rectangle by the mean color.
        flip: Whether to mirror half of the images left to right; None = only color images, because gray ones may show
            characters.
        scale: Smallest and largest area of a random crop, as a fraction of the image's, in (0, 1].
        ratio: Smallest and largest width / height of a random crop, before it is resized to a square.
        crop_padding: Pixels added to each side of an image in memory before a random crop back to its size; None = an
            eighth of the height.
        padding_mode: What these pixels are, as in torchvision's RandomCrop: "constant" is black, "edge" repeats the
            last pixels, "reflect" mirrors the image without repeating them.
    """

    auto_augment: AutoAugment = "none"
    random_erasing: float = 0.0
    flip: bool | None = None
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: int | None = None
    padding_mode: PaddingMode = "constant"

    def flips(self, channels: int) -> bool:
        """Return whether to mirror half of the images with this many channels."""
        return channels == 3 if self.flip is None else self.flip

    def padding(self, height: int, width: int) -> int:
        """Return the pixels added to each side of an image of this size.

        Raises:
            ValueError: More than the image has, if they were chosen or are to be mirrored.
        """
        padding = height // 8 if self.crop_padding is None else self.crop_padding
        is_default = self.crop_padding is None and self.padding_mode == "constant"
        if is_default or padding == 0 or padding < min(height, width):
            return padding
        raise ValueError(
            f"--crop-padding {padding} must be less than the sides of the images, which have {width}x{height} pixels"
        )

    @property
    def changes_pixels(self) -> bool:
        """Whether it does more than crop and flip."""
        return self.auto_augment != "none" or self.random_erasing > 0
