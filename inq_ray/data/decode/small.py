"""The bytes of a small image file -> pixels, in colour or gray, of the one size that all images of a set have."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inq_ray.data.decode.pillow import broken, eight_bits, is_16_bits, open_image

# Pixels a side.
MAX_SIDE = 96
_GRAY = ("1", "L")


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
        ValueError: These bytes are no image.
    """
    image = open_image(data)
    return Layout(1 if image.mode in _GRAY or is_16_bits(image) else 3, image.height, image.width)


def is_small(layout: Layout) -> bool:
    """Return whether images of this size stay as they are."""
    return max(layout.height, layout.width) <= MAX_SIDE


def common_layout(layouts: Iterable[Layout]) -> Layout | None:
    """Return the layout of all, in colour if any is; None if they are of several sizes, or none."""
    seen = set(layouts)
    if len({(layout.height, layout.width) for layout in seen}) != 1:
        return None
    return max(seen, key=lambda layout: layout.channels)


def decode(data: bytes, layout: Layout, *, may_lose_colours: bool = False) -> NDArray[np.uint8]:
    """Decode an image: uint8 [C, H, W].

    Gray images become RGB where the layout has 3 channels, and transparency is dropped. Of 16 bits the upper 8
    are kept.

    Args:
        data: The file.
        layout: What is wanted.
        may_lose_colours: Whether colours become gray where the layout is gray.

    Raises:
        ValueError: These bytes are no image, broken, of another size, or colours where the layout is gray.
    """
    image = open_image(data)
    if (image.height, image.width) != (layout.height, layout.width):
        raise ValueError(
            f"the image is {image.width}x{image.height} where the first ones are {layout.width}x{layout.height}: small "
            "images are kept in memory, and have to be of one size; resize them first"
        )
    image = eight_bits(image)
    if layout.channels == 1 and image.mode not in _GRAY and not may_lose_colours:
        raise ValueError(
            f"the image has colours (mode {image.mode}) where the first one is gray; convert all to one kind"
        )
    mode = "RGB" if layout.channels == 3 else "L"
    with broken():
        if mode == "L" and image.mode not in _GRAY:
            image = image.convert("RGB")
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.transpose(2, 0, 1) if layout.channels == 3 else pixels[None]
