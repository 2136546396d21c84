"""From the bytes of an image file to the square of pixels that the network expects, in training and validation."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from inq_ray.data.augment.auto_augment import augment_image
from inq_ray.data.augment.random_resized_crop import draw_crop
from inq_ray.data.decode.picture import MAX_PIXELS, Box, Picture
from inq_ray.data.preprocessing import Augmentation, Interpolation, Preprocessing


class Crop(NamedTuple):
    """What becomes of an image: a part of it for training, all of it for validation.

    Attributes:
        height: Height of the whole image, pixels.
        width: Width of the whole image, pixels.
        box: Part of it for training; None = as in validation.
        mirrored: Whether the part is mirrored left to right.
    """

    height: int
    width: int
    box: Box | None = None
    mirrored: bool = False


@dataclass(frozen=True)
class ImageTransform:
    """Transform of image files, one at a time; it can be sent to other processes.

    Images are uint8 [C, height, width], C = `channels`, not normalized (this happens on the device). Channels are
    interleaved in memory: strides are (1, 3 * width, 3), unless auto-augmentation changed them. Copying them into a
    tensor of `torch.channels_last` keeps this format.

    Attributes:
        preprocessing: Preprocessing that the network expects.
        augmentation: Augmentation for training.
    """

    preprocessing: Preprocessing
    augmentation: Augmentation

    def train(self, data: bytes, sample: int, seed: int, epoch: int) -> Tensor:
        """Return a random crop, resized, augmented, perhaps mirrored: a function of these arguments alone.

        For the same crop, bits are those of torchvision.transforms.v2 on uint8 tensors. If a crop is at least twice as
        large as the output, JPEGs are decoded at half the size or less.

        Args:
            data: Contents of the file.
            sample: Index of the image in its set.
            seed: The run's seed.
            epoch: Epoch, counted over the whole run.

        Returns:
            uint8 [C, preprocessing.train_size, preprocessing.train_size].

        Raises:
            ValueError: The image cannot be read.
        """
        preprocessing = self.preprocessing
        picture = Picture(data)
        box, mirrored = self._draw(picture, sample, seed, epoch)
        pixels = picture.part(box, largest_shrink(min(box.height, box.width), preprocessing.train_size))
        image = resize_square(torch.from_numpy(pixels), preprocessing.train_size, preprocessing.interpolation)
        if mirrored:
            image = image.flip(2)
        return self._in_channels(
            augment_image(
                image, self.augmentation, preprocessing.mean, sample, seed, epoch, preprocessing.interpolation
            )
        )

    def evaluate(self, data: bytes) -> Tensor:
        """Return the resized center crop, bit for bit that of torchvision's weights' transform on Pillow's image.

        Args:
            data: Contents of the file.

        Returns:
            uint8 [C, preprocessing.crop_size, preprocessing.crop_size]; smaller images are padded with black.

        Raises:
            ValueError: The image cannot be read.
        """
        picture = Picture(data)
        self._check_length(picture)
        image = Image.fromarray(picture.pixels())
        mode = InterpolationMode(self.preprocessing.interpolation)
        image = functional.resize(image, [self.preprocessing.resize_size], interpolation=mode, antialias=True)
        image = functional.center_crop(image, [self.preprocessing.crop_size])
        return self._in_channels(torch.from_numpy(np.array(image)).permute(2, 0, 1))

    def crop(self, data: bytes, sample: int, augment: tuple[int, int] | None) -> Crop:
        """Return what `train` or `evaluate` makes of an image, for `apply`; only its header is read.

        Args:
            data: Contents of the file.
            sample: Index of the image in its set.
            augment: Seed and epoch for training; None = as in validation.

        Raises:
            ValueError: The header is damaged, or the image is too large.
        """
        picture = Picture(data)
        if augment is not None:
            return Crop(picture.height, picture.width, *self._draw(picture, sample, *augment))
        self._check_length(picture)
        return Crop(picture.height, picture.width)

    def apply(self, pixels: Tensor, crop: Crop) -> Tensor:
        """Crop, resize and mirror an image that is decoded as a whole, on its device.

        This is computed in float32, whose bits differ between devices. Results of `train` and `evaluate` differ by
        rounding, and those of training in addition if they decode at a fraction of the size. Auto-augmentation and
        random erasing are not applied.

        Args:
            pixels: uint8 [3, crop.height, crop.width].
            crop: Result of `crop`.

        Returns:
            uint8 of the shape that `train` or `evaluate` returns, on the device of the pixels.
        """
        preprocessing = self.preprocessing
        nearest = preprocessing.interpolation == "nearest"  # Pillow's, which torch calls exact
        mode = InterpolationMode.NEAREST_EXACT if nearest else InterpolationMode(preprocessing.interpolation)
        if crop.box is None:
            size = [preprocessing.resize_size]
        else:
            top, left, height, width = crop.box
            pixels = pixels[:, top : top + height, left : left + width]
            size = [preprocessing.train_size] * 2
        image = functional.resize(pixels.to(torch.float32), size, interpolation=mode, antialias=True)
        image = image.round_().clamp_(0, 255).to(torch.uint8)
        if crop.box is None:
            image = functional.center_crop(image, [preprocessing.crop_size])
        return self._in_channels(image.flip(2) if crop.mirrored else image)

    @property
    def channels(self) -> int:
        """Number of channels of the output."""
        return self.preprocessing.channels or 3

    def _draw(self, picture: Picture, sample: int, seed: int, epoch: int) -> tuple[Box, bool]:
        return draw_crop(picture.height, picture.width, self.augmentation, sample, seed, epoch, channels=self.channels)

    def _check_length(self, picture: Picture) -> None:
        """Refuse an image that would be too large once its shorter side is resized."""
        short, long = sorted((picture.height, picture.width))
        if self.preprocessing.resize_size**2 * long > MAX_PIXELS * short:
            raise ValueError(f"the image has {picture.width}x{picture.height} pixels, too long to resize: crop it")

    def _in_channels(self, image: Tensor) -> Tensor:
        """Convert uint8 [3, h, w] to the requested number of channels; three equal channels become one."""
        if self.channels == 3:
            return image
        # Pillow's, times 65,536.
        weights = torch.tensor((19595, 38470, 7471), dtype=torch.int32, device=image.device).view(3, 1, 1)
        return (((image * weights).sum(0, keepdim=True) + 32768) >> 16).to(torch.uint8)


def largest_shrink(side: int, size: int) -> int:
    """Return the largest of 8, 4, 2, 1 by which a side can be divided without getting shorter than `size`."""
    return next(shrink for shrink in (8, 4, 2, 1) if shrink == 1 or side >= shrink * size)


def resize_square(pixels: Tensor, size: int, interpolation: Interpolation) -> Tensor:
    """Resize uint8 [h, w, 3] to a square, uint8 [3, size, size], keeping the memory layout.

    torch's vectorized code for uint8 needs interleaved channels, as decoders write them: the batch of one must have all
    strides of channels_last, even the irrelevant one. "nearest" is Pillow's.
    """
    images = pixels[None].permute(0, 3, 1, 2)
    if interpolation == "nearest":
        resized = interpolate(images, (size, size), mode="nearest-exact")
    else:
        resized = interpolate(images, (size, size), mode=interpolation, antialias=True)
    return resized[0]
