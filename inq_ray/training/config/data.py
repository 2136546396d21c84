"""What a network is trained and measured on."""

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

from inq_ray.data.image_set import SourceInfo
from inq_ray.data.preprocessing import LARGEST_SIZE
from inq_ray.data.source import named_source
from inq_ray.files.shown import shown
from inq_ray.training.config.checks import between, count
from inq_ray.training.config.option import Affects, Check, Phase, Unused, check_options, option

Interpolation = Literal["auto", "nearest", "bilinear", "bicubic"]
AutoAugment = Literal["none", "randaugment", "trivialaugment", "autoaugment", "augmix"]


def _is_in_memory(info: SourceInfo) -> bool:
    return not info.is_streamed


def _why_they_stay(_: Any, info: SourceInfo | None) -> str:
    assert info is not None
    return (
        f"has no effect: the images of {info.name} are all of {info.width}x{info.height} pixels, are kept in memory, "
        "and stay as they are; leave it out"
    )


def _has_no_files(config: Any) -> bool:
    data = config.data.data
    return named_source(data) is not None or ("://" in data and not data.startswith("file:"))


def _is_ungrouped(info: SourceInfo) -> bool:
    return not info.is_grouped


_STAY = Unused(data=_is_in_memory, why=_why_they_stay, is_refused=True)
_WHOLE = Unused(
    data=_is_in_memory,
    why="has no effect: small images are kept in memory, where each has to be whole; leave it out",
    is_refused=True,
)
_OWN = Unused(
    when=lambda config: (entry := named_source(config.data.data)) is not None and entry.has_own_statistics,
    data=lambda _: True,  # once they are opened
    why="has no effect: these data are normalized by their own; leave it out",
    is_refused=True,
)
_CROP = Unused(
    data=_is_in_memory,
    why="has no effect: small images are kept in memory, padded and cropped back to their size; leave it out",
    is_refused=True,
)
_NAMED = Unused(
    when=lambda config: named_source(config.data.data) is not None,
    why="has no effect: these data are what they are; leave it out",
    is_refused=True,
)
_column = functools.partial(option, None, sweep=False, sees=True, unused=(_NAMED,))
_size = functools.partial(option, None, check=between(f"[1, {LARGEST_SIZE}]"), unused=(_STAY,))


def _channels(*, is_positive: bool) -> Check:
    def check(flag: str, values: tuple[float, ...]) -> tuple[float, ...]:
        given = shown(" ".join(map(str, values)))
        if len(values) not in (0, 1, 3) or not all(math.isfinite(value) for value in values):
            raise ValueError(f"{flag} must be three numbers, of red, green and blue, or one, got {given}")
        if any(abs(value) > 1 for value in values):
            raise ValueError(f"{flag} is of pixels from 0 to 1, got {given}: divide by 255")
        if is_positive and values and min(values) <= 0:
            raise ValueError(f"{flag} must be above 0, got {given}")
        return values

    return check


def _range(bounds: str) -> Check:
    inside = between(bounds)

    def check(flag: str, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(values) != 2 or values[0] > values[1]:
            raise ValueError(f"{flag} must be two numbers, smallest and largest, got {' '.join(map(str, values))}")
        inside(flag, values)
        return values

    return check


def _check_channels(flag: str, channels: int) -> int:
    if channels not in (1, 3):
        raise ValueError(f"{flag} must be 1 (gray) or 3 (red, green, blue), got {channels}")
    return channels


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What a network is trained and measured on."""

    data: str = option(
        "digits",
        "Data: a folder of train/CLASS/ and val/CLASS/, or Parquet, at a path or an address (s3://b/c); or digits.",
        in_stage_key=False,  # its fingerprint is
        sweep=False,
        path=lambda data: named_source(data) is not None,
        is_first=True,
    )
    follow_links: bool = option(
        False,
        "Follow links in the folder of --data that lead out of it: only if you trust who made it.",
        affects=Affects.NOTHING,
        sweep=False,
        sees=True,
        unused=(Unused(when=_has_no_files, why="has no effect: these data are not files in a folder"),),
    )
    holdout: int = option(
        0,
        "Training images to hold out and to measure on instead of the test set, for choosing hyperparameters.",
        check=count(0),
        sweep=False,
        sees=True,
    )
    loader_workers: int | None = option(
        None,
        "Processes of each worker that read and decode images; by default its CPUs, none for data in memory.",
        aliases=("-j", "--workers"),
        check=count(0, 1024),
        affects=Affects.NOTHING,
    )
    shuffle_buffer: int = option(
        8192,
        "Images among which a worker shuffles Parquet that is read while training; their files are held in memory.",
        check=count(1),
        phase=Phase.TRAINING,
        unused=(Unused(data=_is_ungrouped, why="has no effect: only Parquet that is read while training needs it"),),
    )
    skip_bad_images: int = option(
        0,
        "Images that may be unreadable: they are left out and counted. With more the run ends and names one.",
        check=count(0),
        affects=Affects.NOTHING,
        sees=True,
        unused=(_WHOLE,),
    )
    crop_size: int | None = _size("Side in pixels that the network is given; by default as its weights state.")
    train_crop_size: int | None = _size("Side in pixels in training; by default --crop-size.", phase=Phase.TRAINING)
    resize_size: int | None = _size(
        "Shorter side in pixels before the center crop of validation; by default as the weights state."
    )
    interpolation: Interpolation = option("auto", "Resize filter; auto is as the weights state.", unused=(_STAY,))
    image_column: str | None = _column("Parquet's column of images; by default image or img.")
    label_column: str | None = _column(
        "Parquet's column of classes: integers from 0, or texts, numbered in sorted order; by default label."
    )
    channels: int | None = option(
        None,
        "Channels that the network is given, 1 or 3; by default 1 where small images of one size are all gray, else 3.",
        check=_check_channels,
        sweep=False,
        sees=True,
        unused=(_NAMED,),
    )
    mean: tuple[float, ...] = option(
        (),
        "Mean of red, green and blue, or one for all, by which images are normalized, of pixels from 0 to 1; by "
        "default as the weights state.",
        check=_channels(is_positive=False),
        sees=True,
        unused=(_OWN,),
    )
    std: tuple[float, ...] = option(
        (),
        "Standard deviation of red, green and blue, or one for all; by default as the weights state.",
        check=_channels(is_positive=True),
        sees=True,
        unused=(_OWN,),
    )
    flip: bool | None = option(
        None,
        "Mirror half of the training images left to right; by default those with colours, gray ones not.",
        phase=Phase.TRAINING,
    )
    crop_scale: tuple[float, ...] = option(
        (0.08, 1.0),
        "Smallest and largest part of an image's area that a random crop of training covers.",
        check=_range("(0, 1]"),
        phase=Phase.TRAINING,
        unused=(_CROP,),
    )
    crop_ratio: tuple[float, ...] = option(
        (3 / 4, 4 / 3),
        "Smallest and largest width / height of a random crop of training, before it becomes a square.",
        check=_range("[0.01, 100]"),
        phase=Phase.TRAINING,
        unused=(_CROP,),
    )
    auto_augment: AutoAugment = option("none", "Policy of augmentation after crop and flip.", phase=Phase.TRAINING)
    random_erasing: float = option(
        0.0,
        "Probability that a rectangle of a training image is erased.",
        check=between("[0, 1]"),
        phase=Phase.TRAINING,
    )

    def __post_init__(self) -> None:
        check_options(self)
