"""Crop and flip of whole batches on any device; randomness is a function of (seed, epoch, sample)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from inq_ray.data.preprocessing import Augmentation, PaddingMode
from inq_ray.data.seeded import counter_hash


@dataclass(frozen=True, kw_only=True)
class CropFlip:
    """Random crop and flip of training images.

    Attributes:
        padding: Pixels added to each side before a random crop back to the image's size, fewer than its sides; 0 = no
            crop.
        flip: Whether to mirror half of the images left to right.
        mode: What is added, as in torchvision's RandomCrop: "constant" is zeros.
    """

    padding: int = 0
    flip: bool = False
    mode: PaddingMode = "constant"

    @classmethod
    def of(cls, augmentation: Augmentation, shape: Sequence[int]) -> "CropFlip":
        """Return that of an augmentation, for images [C, H, W].

        Raises:
            ValueError: As :meth:`Augmentation.padding`.
        """
        channels, height, width = shape
        padding = augmentation.padding(height, width)
        return cls(padding=padding, flip=augmentation.flips(channels), mode=augmentation.padding_mode)

    def __call__(self, images: Tensor, samples: Tensor, seed: int, epoch: int) -> Tensor:
        """Pad, crop at random to the original size, and mirror images with probability 1/2.

        Args:
            images: uint8 [n, C, H, W], on any device, where the result is computed.
            samples: int64 [n], on the CPU, the index of each image in its set. The result depends on (seed, epoch,
                sample), never on other images of the batch.
            seed: The run's seed.
            epoch: Epoch, counted over the whole run.

        Returns:
            uint8 [n, C, H, W]; new memory, unless there is nothing to do.
        """
        padding = self.padding
        if padding == 0 and not self.flip:
            return images
        num, channels, height, width = images.shape
        device = images.device
        top, left, mirrored = _draw(samples, seed, epoch, padding).to(device, non_blocking=True).unsqueeze(2)
        rows = top + torch.arange(height, device=device)
        columns = left + torch.arange(width, device=device)
        if self.flip:
            columns = torch.where(mirrored == 1, columns.flip(1), columns)
        if self.mode == "constant":
            images, width = pad(images, (padding, padding, padding, padding)), width + 2 * padding
        else:
            rows, columns = (
                _inside(places - padding, size, self.mode) for places, size in ((rows, height), (columns, width))
            )
        # One gather over the flattened images crops and mirrors the whole batch.
        places = rows[:, :, None] * width + columns[:, None, :]
        pixels = images.flatten(2).gather(2, places.view(num, 1, -1).expand(-1, channels, -1))
        return pixels.view(num, channels, height, -1)


def _inside(places: Tensor, size: int, mode: PaddingMode) -> Tensor:
    """Return from where in 0 .. size - 1 pixels are taken for these places, which are less than size outside."""
    last = size - 1
    return places.clamp(0, last) if mode == "edge" else last - (last - places.abs()).abs()


def _draw(samples: Tensor, seed: int, epoch: int, padding: int) -> Tensor:
    """Return int64 [3, n]: each sample's crop, top and left in 0 .. 2 * padding, and 1 if it is mirrored, else 0.

    Of 64 random bits the lower 31 give the row, the next 31 the column, and the last one the mirroring.
    """
    bits = counter_hash("crop_flip", seed, epoch, samples.numpy())
    part, shift, places = np.uint64((1 << 31) - 1), np.uint64(31), np.uint64(2 * padding + 1)
    top = ((bits & part) * places) >> shift
    left = (((bits >> shift) & part) * places) >> shift
    return torch.from_numpy(np.stack((top, left, bits >> np.uint64(63))).astype(np.int64))
