"""From the bytes of an image file of any size and format to RGB pixels, of all of it or a part."""

import warnings
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inq_ray.data.decode.pillow import broken, eight_bits, open_image
from inq_ray.data.decode.turbojpeg import Header, decode_part, read_header

MAX_PIXELS = 1024**3 // 4 // 3
"""Above this size Pillow warns of decompression bombs; here such images are refused."""


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


class Picture:
    """An image file whose header has been read.

    Pixels are those of Pillow's `convert("RGB")`, as in torchvision's ImageFolder: gray images get three equal
    channels, transparency is dropped, CMYK is converted, and EXIF rotation is ignored (published accuracies were
    measured so). Gray images of 16 bits keep their upper 8 bits, as Pillow does for 16-bit colors; `convert` would
    clip everything brighter than 255 of 65,535.

    Common JPEGs are decoded by libjpeg-turbo itself, and only the requested part. All others, and those it reports as
    damaged, are decoded by Pillow, whose verdict counts.

    Args:
        data: Contents of the file.

    Attributes:
        height: Height, pixels.
        width: Width, pixels.

    Raises:
        ValueError: The file is empty, not an image of `FORMATS`, has no RGB mode, or is larger than `MAX_PIXELS`.
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
        """Decode the whole image: uint8 [height, width, 3].

        Raises:
            ValueError: The file is damaged.
        """
        return self.part(Box(0, 0, self.height, self.width))

    def part(self, box: Box, shrink: int = 1) -> NDArray[np.uint8]:
        """Decode a rectangle.

        Args:
            box: Rectangle, in pixels of the whole image.
            shrink: 1, 2, 4 or 8: a JPEG is decoded to this fraction of its height and width, which is faster; the
                rectangle's edges are then rounded. Other formats are decoded at full size.

        Returns:
            uint8 [h, w, 3], with the box's height and width or a fraction of them; writable, perhaps not contiguous.

        Raises:
            ValueError: The file is damaged.
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
        # A copy, because torch needs writable memory.
        return np.array(_rgb(image)[box.top : box.top + box.height, box.left : box.left + box.width])


def _shrunken(box: Box, shrink: int) -> Box:
    """Return the box scaled down; edges are rounded to the nearest pixel."""
    top, left, bottom, right = (
        (edge + shrink // 2) // shrink for edge in (box.top, box.left, box.top + box.height, box.left + box.width)
    )
    return Box(top, left, bottom - top, right - left)


def _draft(image: Image.Image, shrink: int) -> Image.Image:
    """Make Pillow decode a JPEG at a fraction of its size, as `decode_part` does; other images are unchanged."""
    image.draft(None, (image.width // shrink, image.height // shrink))
    return image


def _quiet() -> AbstractContextManager[object]:
    """Silence Pillow's warnings about odd metadata, which it repeats for every image in every process."""
    return warnings.catch_warnings(action="ignore")


def _open(data: bytes) -> Image.Image:
    with _quiet():
        return open_image(data)


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Decode an image: uint8 [H, W, 3], read-only."""
    with _quiet(), broken():
        image = eight_bits(image)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
