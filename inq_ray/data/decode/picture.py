"""The bytes of one image file of any size and kind -> RGB pixels, all of them or a part."""

import warnings
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inq_ray.data.decode.pillow import broken, eight_bits, open_image
from inq_ray.data.decode.turbojpeg import Header, decode_part, read_header

MAX_PIXELS = 1024**3 // 4 // 3
"""Above it Pillow warns of files made to fill the memory; here they are refused."""


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


class Picture:
    """An image file whose header was read.

    Pixels are those of Pillow's `convert("RGB")`, as torchvision's ImageFolder loads them: gray images get three equal
    channels, transparency is dropped, CMYK is converted, and the turn that EXIF may ask for is not made (published
    accuracies were measured so). Gray images of 16 bits keep their upper 8, as Pillow reads colours of 16 bits;
    `convert` would cut off all that is brighter than 255 of 65,535.

    Usual JPEGs are decoded by libjpeg-turbo itself, only where pixels are asked for; all others, and those it finds
    fault with, by Pillow, whose word on what is broken counts.

    Args:
        data: The file.

    Attributes:
        height: Pixels.
        width: Pixels.

    Raises:
        ValueError: The file is empty, no image of `FORMATS`, of a mode that has no RGB, or larger than `MAX_PIXELS`.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._header: Header | None = read_header(data)
        self._image: Image.Image | None = None
        if self._header is not None:
            self.height, self.width = self._header.height, self._header.width
        else:
            self._image = _open(data)
            self.width, self.height = self._image.size
        if self.height * self.width > MAX_PIXELS:
            raise ValueError(
                f"the image has {self.width}x{self.height} pixels, more than {MAX_PIXELS:,}: make it smaller"
            )

    def pixels(self) -> NDArray[np.uint8]:
        """Decode all of it: uint8 [height, width, 3].

        Raises:
            ValueError: The file is broken.
        """
        return self.part(Box(0, 0, self.height, self.width))

    def part(self, box: Box, shrink: int = 1) -> NDArray[np.uint8]:
        """Decode a rectangle.

        Args:
            box: In pixels of the whole image.
            shrink: 1, 2, 4 or 8: a JPEG is decoded to this fraction of its height and width, which takes less time;
                the rectangle's edges are then rounded. All others come in full.

        Returns:
            uint8 [h, w, 3], h and w those of the box, or a fraction of them; writable, perhaps not contiguous.

        Raises:
            ValueError: The file is broken.
        """
        if self._header is not None:
            small = _shrunken(box, shrink)
            pixels = decode_part(self._data, self._header, *small, shrink)
            if pixels is not None:
                return pixels
        image = self._image or _open(self._data)
        self._image = None  # Pillow's images can be decoded at one scale only
        if shrink > 1 and image.size != _draft(image, shrink).size:
            box = _shrunken(box, shrink)
        # A copy, as torch wants memory that may be written to.
        return np.array(_rgb(image)[box.top : box.top + box.height, box.left : box.left + box.width])


def _shrunken(box: Box, shrink: int) -> Box:
    """Return the box in an image of a fraction of the size; edges are rounded to the nearest pixel."""
    top, left, bottom, right = (
        (edge + shrink // 2) // shrink for edge in (box.top, box.left, box.top + box.height, box.left + box.width)
    )
    return Box(top, left, bottom - top, right - left)


def _draft(image: Image.Image, shrink: int) -> Image.Image:
    """Have a JPEG decoded at a fraction of its size, as `decode_part` does it; nothing happens to other images."""
    image.draft(None, (image.width // shrink, image.height // shrink))
    return image


def _quiet() -> AbstractContextManager[object]:
    """Keep Pillow's warnings to itself: it warns of odd metadata, of every such image in every process."""
    return warnings.catch_warnings(action="ignore")


def _open(data: bytes) -> Image.Image:
    with _quiet():
        return open_image(data)


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Decode an image: uint8 [H, W, 3], read-only."""
    with _quiet(), broken():
        image = eight_bits(image)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
