"""Random crop for training: torchvision's RandomResizedCrop, with random numbers from (seed, epoch, sample)."""

import math

import numpy as np

from inq_ray.data.decode.picture import Box
from inq_ray.data.preprocessing import Augmentation
from inq_ray.data.seeded import counter_hash

_NUM_TRIES = 10
_NUM_WORDS = 2 * _NUM_TRIES + 3
_STRIDE = 32
_WORDS = np.arange(_NUM_WORDS)


def draw_crop(
    height: int, width: int, augmentation: Augmentation, sample: int, seed: int, epoch: int, *, channels: int = 3
) -> tuple[Box, bool]:
    """Return the random crop of an image of this size, and whether to mirror it.

    The crop's area, as a fraction of the image's, is uniform within `scale`, and the logarithm of its aspect ratio
    (width / height) within `ratio`. After ten tries that do not fit, the largest central crop that `ratio` allows is
    used. This is torchvision's algorithm (`RandomResizedCrop.make_params`) with other random numbers.

    Args:
        height: Height of the image, pixels.
        width: Width of the image, pixels.
        augmentation: Provides scale, ratio and flip.
        sample: Index of the image in its set, from 0 to 2^58 - 1.
        seed: The run's seed.
        epoch: Epoch, counted over the whole run.
        channels: Channels of the network's input.

    Returns:
        The crop; whether it is mirrored left to right.
    """
    bits = counter_hash("random_crop", seed, epoch, sample * _STRIDE + _WORDS)
    uniform = ((bits >> np.uint64(11)) * 2.0**-53).tolist()  # in [0, 1), 53 bits
    top, left, mirror = uniform[2 * _NUM_TRIES :]
    crop_height, crop_width = _draw_size(height, width, augmentation, uniform)
    if crop_height == 0:
        crop_height, crop_width = _middle_size(height, width, augmentation.ratio)
        box = Box((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)
    else:
        rows, columns = height - crop_height + 1, width - crop_width + 1
        box = Box(int(top * rows), int(left * columns), crop_height, crop_width)
    return box, augmentation.flips(channels) and mirror < 0.5


def _draw_size(height: int, width: int, augmentation: Augmentation, uniform: list[float]) -> tuple[int, int]:
    """Return the height and width of the first try that fits; zeros if none does."""
    (low, high), (narrow, wide) = augmentation.scale, map(math.log, augmentation.ratio)
    for place in range(0, 2 * _NUM_TRIES, 2):
        area = height * width * (low + (high - low) * uniform[place])
        ratio = math.exp(narrow + (wide - narrow) * uniform[place + 1])
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            return crop_height, crop_width
    return 0, 0


def _middle_size(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Return height and width of the largest central crop whose ratio is allowed, at least one pixel."""
    if width / height < ratio[0]:
        return max(1, round(width / ratio[0])), width
    if width / height > ratio[1]:
        return height, max(1, round(height * ratio[1]))
    return height, width
