"""The bytes of a small image file -> pixels, in colour or gray, of the one size that all images of a set have."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inq_ray.data.decode.pillow import broken, open_image

_GRAY = ("1", "L")
_DEEP = ("I", "F")


@dataclass(frozen=True)
class Layout:
    """The shape that all images of a set have: `channels` is 3 (RGB) or 1 (gray); sizes in pixels."""

    channels: int
    height: int
    width: int

    @property
    def num_bytes(self) -> int:
        """Bytes of one image, decoded."""
        return self.channels * self.height * self.width


def read_layout(data: bytes) -> Layout:
    """Return the layout of an image from its header, without decoding it.

    Raises:
        ValueError: These bytes are no image, or one of more than 8 bits a channel.
    """
    image = _open(data)
    return Layout(1 if image.mode in _GRAY else 3, image.height, image.width)


def decode(data: bytes, layout: Layout) -> NDArray[np.uint8]:
    """Decode an image: uint8 [C, H, W].

    Gray images become RGB where the layout has 3 channels, and transparency is dropped.

    Raises:
        ValueError: These bytes are no image, broken, of another size, or colours where the layout is gray.
    """
    image = _open(data)
    if (image.height, image.width) != (layout.height, layout.width):
        raise ValueError(
            f"the image is {image.width}x{image.height} where the first ones are {layout.width}x{layout.height}: small "
            "images are kept in memory, and have to be of one size; resize them first"
        )
    if layout.channels == 1 and image.mode not in _GRAY:
        raise ValueError(
            f"the image has colours (mode {image.mode}) where the first one is gray; convert all to one kind"
        )
    mode = "RGB" if layout.channels == 3 else "L"
    with broken():
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.transpose(2, 0, 1) if layout.channels == 3 else pixels[None]


def _open(data: bytes) -> Image.Image:
    """Open an image without decoding it."""
    image = open_image(data)
    if image.mode.startswith(_DEEP):
        raise ValueError(f"the image has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
    return image
