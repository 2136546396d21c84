"""Image files opened by Pillow: supported formats, and errors as a ValueError of one line.

torchvision.io decodes small PNGs faster by a fifth, but is deprecated since torchvision 0.29, warns for every image,
and libpng prints to the terminal for damaged ones.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, UnidentifiedImageError

# Supported formats by Pillow's names, with the file extensions that count as images, as in torchvision's ImageFolder;
# case is ignored.
FORMATS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (),
    "BMP": (".bmp",),
    "PPM": (".ppm", ".pgm"),
    "TIFF": (".tif", ".tiff"),
}
# First bytes of unsupported files.
_OTHERS = (
    (re.compile(rb".{4}ftypavi[fs]", re.DOTALL), "AVIF"),
    (re.compile(rb".{4}ftyp(hei|hev|mif1|msf1)", re.DOTALL), "HEIF"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"), "JPEG XL"),
    (re.compile(rb"8BPS"), "Photoshop"),
    (re.compile(rb"%PDF"), "PDF"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer (git lfs pull fetches the image)"),
    (re.compile(rb"\s*<(svg|\?xml|!doctype|html)", re.IGNORECASE), "an SVG drawing, or an XML or HTML page"),
)
EXTENSIONS = tuple(extension for extensions in FORMATS.values() for extension in extensions)


def open_image(data: bytes) -> Image.Image:
    """Open an image without decoding it.

    Raises:
        ValueError: The bytes are not an image of `FORMATS`, or its header is damaged.
    """
    if not data:
        raise ValueError("the file is empty")
    with broken():
        try:
            return Image.open(io.BytesIO(data), formats=tuple(FORMATS))
        except UnidentifiedImageError:  # its text is the address of a buffer
            formats = ", ".join(FORMATS)
            for beginning, name in _OTHERS:
                if beginning.match(data):
                    raise ValueError(
                        f"the file is {name}, which is not supported: convert it to one of {formats}"
                    ) from None
            raise ValueError(f"the file is not an image, or its header is damaged: none of {formats}") from None


def eight_bits(image: Image.Image) -> Image.Image:
    """Return an image with at most 8 bits per channel; of 16-bit gray the upper 8 bits are kept. May decode.

    Raises:
        ValueError: It has 32-bit values, whose range is unknown; or it is damaged.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    if not is_16_bits(image):
        raise ValueError(f"the image has 32-bit values (mode {image.mode}): convert it to 8 bits per channel")
    with broken():
        return Image.fromarray((np.asarray(image).astype(np.uint16, copy=False) >> 8).astype(np.uint8))


def is_16_bits(image: Image.Image) -> bool:
    """Return whether an image is 16-bit gray; Pillow reads 16-bit PGMs as 32-bit values."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")


@contextmanager
def broken() -> Iterator[None]:
    """Turn Pillow's errors into a ValueError of one line."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the image is damaged: {reason}") from error
