"""Options for data and preprocessing."""

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

from inq_ray.data.image_set import SourceInfo
from inq_ray.data.preprocessing import LARGEST_SIZE, AutoAugment, PaddingMode
from inq_ray.data.source import named_source
from inq_ray.files.shown import shown
from inq_ray.training.config.checks import between, count
from inq_ray.training.config.option import Affects, Check, Phase, Unused, check_options, option

Interpolation = Literal["auto", "nearest", "bilinear", "bicubic"]
JpegDecoder = Literal["cpu", "nvjpeg"]


def _is_in_memory(info: SourceInfo) -> bool:
    return not info.is_streamed


def _why_they_stay(_: Any, info: SourceInfo | None) -> str:
    assert info is not None
    return (
        f"has no effect: all images of {info.name} have {info.width}x{info.height} pixels, so they are kept in memory "
        "and not resized; leave it out"
    )


def _has_no_files(config: Any) -> bool:
    data = config.data.data
    return named_source(data) is not None or ("://" in data and not data.startswith("file:"))


def _is_ungrouped(info: SourceInfo) -> bool:
    return not info.is_grouped


_STAY = Unused(data=_is_in_memory, why=_why_they_stay, is_refused=True)
_WHOLE = Unused(
    data=_is_in_memory,
    why="has no effect: small images are kept in memory, and all must be readable; leave it out",
    is_refused=True,
)
_DECODED = Unused(
    data=_is_in_memory,
    why="has no effect: small images are kept in memory, and decoded once, before training; leave it out",
    is_refused=True,
)
_OWN = Unused(
    when=lambda config: (entry := named_source(config.data.data)) is not None and entry.has_own_statistics,
    data=lambda _: True,  # once the data are opened
    why="has no effect: these data have their own statistics; leave it out",
    is_refused=True,
)
_CROP = Unused(
    data=_is_in_memory,
    why="has no effect: small images are kept in memory, padded and cropped back to their size; leave it out",
    is_refused=True,
)
_PADDING = Unused(
    data=lambda info: info.is_streamed,
    why="has no effect: these images are cropped by --crop-scale and --crop-ratio, and not padded; leave it out",
    is_refused=True,
)
_UNPADDED = Unused(
    when=lambda config: config.data.crop_padding == 0,
    why="has no effect: with --crop-padding 0 nothing is added; leave one of them out",
    is_refused=True,
)
_NAMED = Unused(
    when=lambda config: named_source(config.data.data) is not None,
    why="has no effect: these data have fixed channels; leave it out",
    is_refused=True,
)
_column = functools.partial(option, None, sweep=False, sees=True, unused=(_NAMED,))
_size = functools.partial(option, None, check=between(f"[1, {LARGEST_SIZE}]"), unused=(_STAY,))


def _channels(*, is_positive: bool) -> Check:
    def check(flag: str, values: tuple[float, ...]) -> tuple[float, ...]:
        given = shown(" ".join(map(str, values)))
        if len(values) not in (0, 1, 3) or not all(math.isfinite(value) for value in values):
            raise ValueError(f"{flag} must be three numbers (red, green, blue) or one, got {given}")
        if any(abs(value) > 1 for value in values):
            raise ValueError(f"{flag} is for pixels from 0 to 1, got {given}: divide by 255")
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
    """Data and preprocessing."""

    data: str = option(
        "digits",
        "Data: a folder with train/CLASS/ and val/CLASS/, or Parquet, as a path or an address (s3://b/c); or digits.",
        in_stage_key=False,  # the fingerprint is
        sweep=False,
        path=lambda data: named_source(data) is not None,
        is_first=True,
    )
    follow_links: bool = option(
        False,
        "Follow links that lead out of the folder of --data; only for folders from people you trust.",
        affects=Affects.NOTHING,
        sweep=False,
        sees=True,
        unused=(Unused(when=_has_no_files, why="has no effect: these data are not files in a folder"),),
    )
    holdout: int = option(
        0,
        "Training images to hold out and measure accuracy on instead of the test set, for choosing hyperparameters.",
        check=count(0),
        sweep=False,
        sees=True,
    )
    loader_workers: int | None = option(
        None,
        "Loader processes per worker, which read and decode images; default: its CPUs, 0 for data in memory.",
        aliases=("-j", "--workers"),
        check=count(0, 1024),
        affects=Affects.NOTHING,
    )
    jpeg_decoder: JpegDecoder = option(
        "cpu",
        "Decoder of JPEGs: cpu; or nvjpeg, on the GPU by torchvision, whose pixels differ in their bits.",
        sweep=False,
        unused=(_DECODED,),
    )
    shuffle_buffer: int = option(
        8192,
        "Images that a worker shuffles at a time when it streams Parquet; their files are held in memory.",
        check=count(1),
        phase=Phase.TRAINING,
        unused=(Unused(data=_is_ungrouped, why="has no effect: only streamed Parquet is shuffled in a buffer"),),
    )
    skip_bad_images: int = option(
        0,
        "Maximum number of unreadable images, which are left out and counted; with more, the run stops and names one.",
        check=count(0),
        affects=Affects.NOTHING,
        sees=True,
        unused=(_WHOLE,),
    )
    crop_size: int | None = _size("Side of the network's input, pixels; default: that of the weights.")
    train_crop_size: int | None = _size("Side of training images, pixels; default: --crop-size.", phase=Phase.TRAINING)
    resize_size: int | None = _size(
        "Shorter side before the center crop of validation, pixels; default: that of the weights."
    )
    interpolation: Interpolation = option("auto", "Resize filter; auto is that of the weights.", unused=(_STAY,))
    image_column: str | None = _column("Column of images in Parquet; default: image or img.")
    label_column: str | None = _column(
        "Column of labels in Parquet: integers from 0, or texts, numbered in sorted order; default: label."
    )
    channels: int | None = option(
        None,
        "Channels of the network's input, 1 or 3; default: 1 for small images of one size that are all gray, else 3.",
        check=_check_channels,
        sweep=False,
        sees=True,
        unused=(_NAMED,),
    )
    mean: tuple[float, ...] = option(
        (),
        "Mean for normalization, for pixels from 0 to 1: red, green and blue, or one for all; default: that of "
        "the weights.",
        check=_channels(is_positive=False),
        sees=True,
        unused=(_OWN,),
    )
    std: tuple[float, ...] = option(
        (),
        "Standard deviation for normalization: red, green and blue, or one for all; default: that of the weights.",
        check=_channels(is_positive=True),
        sees=True,
        unused=(_OWN,),
    )
    flip: bool | None = option(
        None,
        "Mirror half of the training images left to right; default: color images only.",
        phase=Phase.TRAINING,
    )
    crop_scale: tuple[float, ...] = option(
        (0.08, 1.0),
        "Smallest and largest area of a random crop for training, as a fraction of the image's.",
        check=_range("(0, 1]"),
        phase=Phase.TRAINING,
        unused=(_CROP,),
    )
    crop_ratio: tuple[float, ...] = option(
        (3 / 4, 4 / 3),
        "Smallest and largest aspect ratio (width / height) of a random training crop, before resizing to a square.",
        check=_range("[0.01, 100]"),
        phase=Phase.TRAINING,
        unused=(_CROP,),
    )
    crop_padding: int | None = option(
        None,
        "Pixels added to each side of small training images before a random crop; 0: no crop; default: height / 8.",
        check=count(0),
        phase=Phase.TRAINING,
        unused=(_PADDING,),
    )
    padding_mode: PaddingMode = option(
        "constant",
        "What small training images are padded with: constant (black), edge (repeated), reflect (mirrored).",
        phase=Phase.TRAINING,
        unused=(_PADDING, _UNPADDED),
    )
    auto_augment: AutoAugment = option("none", "Auto-augmentation policy, after crop and flip.", phase=Phase.TRAINING)
    random_erasing: float = option(
        0.0,
        "Probability of erasing a rectangle of a training image (random erasing).",
        check=between("[0, 1]"),
        phase=Phase.TRAINING,
    )

    def __post_init__(self) -> None:
        check_options(self)
