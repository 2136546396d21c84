"""What is trained and tested on."""

import math
from dataclasses import dataclass
from typing import Literal

from inq_ray.data.preprocessing import LARGEST_SIZE
from inq_ray.training.config.checks import check_at_least, check_choice

Interpolation = Literal["auto", "nearest", "bilinear", "bicubic"]
AutoAugment = Literal["none", "randaugment", "trivialaugment", "autoaugment", "augmix"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained and tested on."""

    data: str = "digits"
    """digits (scikit-learn's), a folder of train/CLASS/ and val/CLASS/, or Parquet; a path, or one such as s3://b/c."""
    follow_links: bool = False
    """Follow links in the folder of --data that lead out of it: only if you trust who made it."""
    holdout: int = 0
    """Training images to hold out and to validate on instead of the test set, for choosing hyperparameters."""
    loader_workers: int | None = None
    """Processes of each worker that read and decode images (also -j); by default its CPUs, none for data in memory."""
    shuffle_buffer: int = 8192
    """Images among which a worker shuffles Parquet that is read while training; their files are held in memory."""
    skip_bad_images: int = 0
    """Images that may be unreadable: they are left out and counted. With more the run ends and names one. Not of small
    ones that are kept in memory."""
    crop_size: int | None = None
    """Pixels of a side that the network is given; by default as its weights state."""
    train_crop_size: int | None = None
    """Pixels of a side in training, if not --crop-size."""
    resize_size: int | None = None
    """Pixels of the shorter side before the center crop of validation; by default as the weights state."""
    interpolation: Interpolation = "auto"
    """Of resizing; auto is as the weights state."""
    mean: tuple[float, ...] = ()
    """Of red, green and blue, or one for all, of pixels from 0 to 1: what the network's images are normalized by; by
    default as the weights state."""
    std: tuple[float, ...] = ()
    """Standard deviations, likewise."""
    auto_augment: AutoAugment = "none"
    """Policy of augmentation after crop and flip."""
    random_erasing: float = 0.0
    """Probability that a rectangle of a training image is erased."""

    def __post_init__(self) -> None:
        check_at_least("--holdout", self.holdout, 0)
        check_at_least("--shuffle-buffer", self.shuffle_buffer, 1)
        check_at_least("--skip-bad-images", self.skip_bad_images, 0)
        for flag, value, least in (
            ("--loader-workers", self.loader_workers, 0),
            ("--crop-size", self.crop_size, 1),
            ("--train-crop-size", self.train_crop_size, 1),
            ("--resize-size", self.resize_size, 1),
        ):
            if value is not None:
                check_at_least(flag, value, least)
                if flag.endswith("-size") and value > LARGEST_SIZE:
                    raise ValueError(f"{flag} must be at most {LARGEST_SIZE} pixels, got {value}")
        for flag, values in (("--mean", self.mean), ("--std", self.std)):
            _check_channels(flag, values)
        if self.std and min(self.std) <= 0:
            raise ValueError(f"--std must be above 0, got {' '.join(map(str, self.std))}")
        check_choice("--interpolation", self.interpolation, Interpolation)
        check_choice("--auto-augment", self.auto_augment, AutoAugment)
        if not 0 <= self.random_erasing <= 1:
            raise ValueError(f"--random-erasing must be in [0, 1], got {self.random_erasing}")


def _check_channels(flag: str, values: tuple[float, ...]) -> None:
    given = " ".join(map(str, values))
    if len(values) not in (0, 1, 3) or not all(math.isfinite(value) for value in values):
        raise ValueError(f"{flag} must be three numbers, of red, green and blue, or one, got {given}")
    if any(abs(value) > 1 for value in values):
        raise ValueError(f"{flag} is of pixels from 0 to 1, got {given}: divide by 255")
