"""The bytes of an image file -> pixels, by Pillow.

torchvision.io decodes small PNGs a fifth faster, but is deprecated since torchvision 0.29, warns at every image, and
libpng prints to the terminal on broken ones.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
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
        ValueError: These bytes are no image of `FORMATS`, or one of more than 8 bits a channel.
    """
    image = _open(data)
    return Layout(1 if image.mode in _GRAY else 3, image.height, image.width)


def decode(data: bytes, layout: Layout) -> NDArray[np.uint8]:
    """Decode an image: uint8 [C, H, W].

    Gray images become RGB where the layout has 3 channels, and transparency is dropped.

    Raises:
        ValueError: These bytes are no image of `FORMATS`, broken, of another size, or colours where the layout is gray.
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
    try:
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    except Exception as error:  # Pillow's decoders fail as anything from SyntaxError to struct.error
        raise ValueError(f"the image is broken: {error}") from error
    return pixels.transpose(2, 0, 1) if layout.channels == 3 else pixels[None]


def _open(data: bytes) -> Image.Image:
    """Open an image without decoding it."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # as above
        reason = f"none of {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"the image is broken: {reason}") from error
    if image.mode.startswith(_DEEP):
        raise ValueError(f"the image has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
    return image
