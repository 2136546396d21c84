"""Image files opened by Pillow: the formats, and what is broken as a ValueError of one line.

torchvision.io decodes small PNGs a fifth faster, but is deprecated since torchvision 0.29, warns at every image, and
libpng prints to the terminal on broken ones.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, UnidentifiedImageError

# Pillow's name of each format that is read, and the files that are images by their names: as for torchvision's
# ImageFolder; case has no effect.
FORMATS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (),
    "BMP": (".bmp",),
    "PPM": (".ppm", ".pgm"),
    "TIFF": (".tif", ".tiff"),
}
# What files that are not read begin with.
_OTHERS = (
    (re.compile(rb".{4}ftypavi[fs]", re.DOTALL), "AVIF"),
    (re.compile(rb".{4}ftyp(hei|hev|mif1|msf1)", re.DOTALL), "HEIF"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"), "JPEG XL"),
    (re.compile(rb"8BPS"), "Photoshop"),
    (re.compile(rb"%PDF"), "PDF"),
    (re.compile(rb"version https://git-lfs"), "no image, but a pointer of Git LFS (git lfs pull fetches it)"),
    (re.compile(rb"\s*<(svg|\?xml|!doctype|html)", re.IGNORECASE), "no image, but a page or a drawing in XML"),
)
EXTENSIONS = tuple(extension for extensions in FORMATS.values() for extension in extensions)


def open_image(data: bytes) -> Image.Image:
    """Open an image without decoding it.

    Raises:
        ValueError: These bytes are no image of `FORMATS`, or its header is broken.
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
                        f"the file is {name}, which is not read here: convert it to one of {formats}"
                    ) from None
            raise ValueError(f"the file is no image, or its header is broken: none of {formats}") from None


def eight_bits(image: Image.Image) -> Image.Image:
    """Return an image of at most 8 bits a channel; gray ones of 16 bits keep their upper 8. May decode.

    Raises:
        ValueError: It has numbers of 32 bits, of which nobody knows the largest; or it is broken.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    if not is_16_bits(image):
        raise ValueError(f"the image has numbers of 32 bits (mode {image.mode}): convert it to 8 bits a channel")
    with broken():
        return Image.fromarray((np.asarray(image).astype(np.uint16, copy=False) >> 8).astype(np.uint8))


def is_16_bits(image: Image.Image) -> bool:
    """Return whether an image is gray of 16 bits; Pillow gives PGMs of such as numbers of 32."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")


@contextmanager
def broken() -> Iterator[None]:
    """Turn what Pillow raises into a ValueError of one line."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:  # Pillow's decoders fail as anything from SyntaxError to struct.error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the image is broken: {reason}") from error
