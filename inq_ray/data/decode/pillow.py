"""Image files opened by Pillow: the formats, and what is broken as a ValueError of one line.

torchvision.io decodes small PNGs a fifth faster, but is deprecated since torchvision 0.29, warns at every image, and
libpng prints to the terminal on broken ones.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager

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
            raise ValueError(f"the file is no image, or its header is broken: none of {', '.join(FORMATS)}") from None


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
