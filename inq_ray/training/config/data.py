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
    auto_augment: AutoAugment = option("none", "Policy of augmentation after crop and flip.", phase=Phase.TRAINING)
    random_erasing: float = option(
        0.0,
        "Probability that a rectangle of a training image is erased.",
        check=between("[0, 1]"),
        phase=Phase.TRAINING,
    )

    def __post_init__(self) -> None:
        check_options(self)
