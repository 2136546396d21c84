"""From the bytes of a small image file to pixels, in color or gray, of a size common to all images of a set."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inq_ray.data.decode.pillow import broken, eight_bits, is_16_bits, open_image

# Longest side, pixels.
MAX_SIDE = 96
_GRAY = ("1", "L")


@dataclass(frozen=True)
class Layout:
    """Shape common to all images of a set: `channels` is 3 (RGB) or 1 (gray); sizes in pixels."""

    channels: int
    height: int
    width: int

    @property
    def num_bytes(self) -> int:
        """Bytes per decoded image."""
        return self.channels * self.height * self.width


def read_layout(data: bytes) -> Layout:
    """Return the layout of an image from its header, without decoding it.

    Raises:
        ValueError: The bytes are not an image.
    """
    image = open_image(data)
    return Layout(1 if image.mode in _GRAY or is_16_bits(image) else 3, image.height, image.width)


def is_small(layout: Layout) -> bool:
    """Return whether images of this size are kept in memory, unresized."""
    return max(layout.height, layout.width) <= MAX_SIDE


def common_layout(layouts: Iterable[Layout]) -> Layout | None:
    """Return the common layout, in color if any image is; None if sizes differ or there are no images."""
    seen = set(layouts)
    if len({(layout.height, layout.width) for layout in seen}) != 1:
        return None
    return max(seen, key=lambda layout: layout.channels)


def decode(data: bytes, layout: Layout, *, may_lose_colors: bool = False) -> NDArray[np.uint8]:
    """Decode an image: uint8 [C, H, W].

    Gray images become RGB if the layout has 3 channels, and transparency is dropped. Of 16 bits the upper 8 are kept.

    Args:
        data: Contents of the file.
        layout: Layout of the result.
        may_lose_colors: Whether color images become gray if the layout is gray.

    Raises:
        ValueError: Not an image, damaged, of another size, or in color although the layout is gray.
    """
    image = open_image(data)
    if (image.height, image.width) != (layout.height, layout.width):
        raise ValueError(
            f"the image is {image.width}x{image.height}, the first ones are {layout.width}x{layout.height}: small "
            "images are kept in memory and must have one size; resize them first"
        )
    image = eight_bits(image)
    if layout.channels == 1 and image.mode not in _GRAY and not may_lose_colors:
        raise ValueError(
            f"the image has colors (mode {image.mode}), but the first one is gray; convert all to one kind"
        )
    mode = "RGB" if layout.channels == 3 else "L"
    with broken():
        if mode == "L" and image.mode not in _GRAY:
            image = image.convert("RGB")
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.transpose(2, 0, 1) if layout.channels == 3 else pixels[None]
