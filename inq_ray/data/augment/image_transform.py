"""The bytes of an image file -> the square of pixels that the network is given, in training and in validation."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from inq_ray.data.augment.auto_augment import augment_image
from inq_ray.data.augment.random_resized_crop import draw_crop
from inq_ray.data.decode.picture import MAX_PIXELS, Picture
from inq_ray.data.preprocessing import Augmentation, Interpolation, Preprocessing


@dataclass(frozen=True)
class ImageTransform:
    """What is done to image files, one at a time; a value that can be sent to other processes.

    Images come as uint8 [C, height, width], C = `channels`, not normalized (that happens on the device). Their bytes
    lie by pixels, red, green and blue beside each other: strides (1, 3 * width, 3), unless auto-augmentation changed
    them.
    Stacked by copying into one tensor of `torch.channels_last`, they stay so.

    Attributes:
        preprocessing: How the network wants to see them.
        augmentation: What training does to them.
    """

    preprocessing: Preprocessing
    augmentation: Augmentation

    def train(self, data: bytes, sample: int, seed: int, epoch: int) -> Tensor:
        """Return a random crop, perhaps mirrored, resized, augmented: a function of these arguments alone.

        Bits are those of torchvision.transforms.v2 on uint8 tensors, given the same crop; where a crop is at least
        twice as large as what is wanted, JPEGs are decoded at half the size or less.

        Args:
            data: The file.
            sample: Number of the image in its set.
            seed: Of the run.
            epoch: Counted over the whole run.

        Returns:
            uint8 [C, preprocessing.train_size, preprocessing.train_size].

        Raises:
            ValueError: It cannot be read.
        """
        preprocessing = self.preprocessing
        picture = Picture(data)
        box, mirrored = draw_crop(
            picture.height, picture.width, self.augmentation, sample, seed, epoch, channels=self.channels
        )
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
        """Return the resized middle, bit for bit what the transform of torchvision's weights makes of Pillow's image.

        Args:
            data: The file.

        Returns:
            uint8 [C, preprocessing.crop_size, preprocessing.crop_size]; black around an image that is smaller.

        Raises:
            ValueError: It cannot be read.
        """
        picture = Picture(data)
        short, long = sorted((picture.height, picture.width))
        if self.preprocessing.resize_size**2 * long > MAX_PIXELS * short:
            raise ValueError(f"the image has {picture.width}x{picture.height} pixels, too long to be resized: crop it")
        image = Image.fromarray(picture.pixels())
        mode = InterpolationMode(self.preprocessing.interpolation)
        image = functional.resize(image, [self.preprocessing.resize_size], interpolation=mode, antialias=True)
        image = functional.center_crop(image, [self.preprocessing.crop_size])
        return self._in_channels(torch.from_numpy(np.array(image)).permute(2, 0, 1))

    @property
    def channels(self) -> int:
        """Of the images that come out."""
        return self.preprocessing.channels or 3

    def _in_channels(self, image: Tensor) -> Tensor:
        """Return uint8 [3, h, w] in the channels that are wanted; three equal ones become one of the same values."""
        if self.channels == 3:
            return image
        weights = torch.tensor((19595, 38470, 7471), dtype=torch.int32).view(3, 1, 1)  # Pillow's, of 65,536
        return (((image * weights).sum(0, keepdim=True) + 32768) >> 16).to(torch.uint8)


def largest_shrink(side: int, size: int) -> int:
    """Return the largest of 8, 4, 2, 1 by which a side can be divided and is still as long as `size`."""
    return next(shrink for shrink in (8, 4, 2, 1) if shrink == 1 or side >= shrink * size)


def resize_square(pixels: Tensor, size: int, interpolation: Interpolation) -> Tensor:
    """Resize uint8 [h, w, 3] to a square: uint8 [3, size, size], its bytes in the same order as before.

    torch has vector code for uint8 whose channels lie beside each other, which is what a decoder makes: a batch of one
    must have the strides of channels_last, also the one that does not matter. "nearest" is Pillow's.
    """
    images = pixels[None].permute(0, 3, 1, 2)
    if interpolation == "nearest":
        resized = interpolate(images, (size, size), mode="nearest-exact")
    else:
        resized = interpolate(images, (size, size), mode=interpolation, antialias=True)
    return resized[0]
