"""TurboJPEG 3, the C interface of libjpeg-turbo: the functions needed to decode a part of an image.

A random crop needs half of an image on average. Pillow, torchvision, simplejpeg, OpenCV, imagecodecs, pylibjxl and
pyvips decode all of it (nvidia-nvimgcodec does not, but is slower and prints to the terminal). What remains is Huffman
decoding from the top to the crop's last row. Decoding at 5/8 to 7/8 of the size is slower than at full size, because
libjpeg-turbo has no vector code for it.

The library comes with the package `turbojpeg` or the system (libjpeg-turbo 3 or newer). Without it, Pillow decodes,
which is slower and gives the same pixels: it uses libjpeg-turbo as well.

Functions and constants: turbojpeg.h, and https://libjpeg-turbo.org/Documentation.
"""

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_SYSTEM = ("libturbojpeg.so.0", "libturbojpeg.0.dylib")
_DECOMPRESS = 1
_STOP_ON_WARNING, _SUBSAMPLING, _WIDTH, _HEIGHT, _PRECISION, _COLORSPACE, _LOSSLESS = 0, 4, 5, 6, 7, 8, 15
_YCBCR, _GRAY = 1, 2
_RGB = 0
# By subsampling (4:4:4, 4:2:2, 4:2:0, gray, 4:4:0, 4:1:1, 4:4:1): columns that are decoded together, which is also how
# far interpolated colors depend on neighboring pixels.
_UNITS = (8, 16, 16, 8, 8, 32, 8)
_MARGINS = (0, 2, 2, 0, 2, 4, 4)


class _Region(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_int), ("width", ctypes.c_int), ("height", ctypes.c_int))


class _Factor(ctypes.Structure):
    _fields_ = (("numerator", ctypes.c_int), ("denominator", ctypes.c_int))


_ARGUMENTS: dict[str, tuple[type, ...]] = {
    "tj3Destroy": (ctypes.c_void_p,),
    "tj3Set": (ctypes.c_void_p, ctypes.c_int, ctypes.c_int),
    "tj3Get": (ctypes.c_void_p, ctypes.c_int),
    "tj3DecompressHeader": (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t),
    "tj3SetScalingFactor": (ctypes.c_void_p, _Factor),
    "tj3SetCroppingRegion": (ctypes.c_void_p, _Region),
    "tj3Decompress8": (
        *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t),
        *(ctypes.c_void_p, ctypes.c_int, ctypes.c_int),
    ),
}


class Header(NamedTuple):
    """Header of a JPEG.

    Attributes:
        height: Height, pixels.
        width: Width, pixels.
        subsampling: Chroma subsampling, as numbered by TurboJPEG.
    """

    height: int
    width: int
    subsampling: int


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the library, or None if there is none; searched for once per process."""
    for path in (*_shipped(), *_SYSTEM):
        try:
            found = ctypes.CDLL(path)
        except OSError:
            continue
        if hasattr(found, "tj3SetCroppingRegion"):
            found.tj3Init.argtypes, found.tj3Init.restype = (ctypes.c_int,), ctypes.c_void_p
            for name, arguments in _ARGUMENTS.items():
                getattr(found, name).argtypes = arguments
            return found
    return None


def read_header(data: bytes) -> Header | None:
    """Return the header of a JPEG that `decode_part` supports; None for all other files.

    Supported are gray and three-channel images of 8 bits that end with the end-of-image marker. In a truncated file, a
    part could be read without noticing that the rest is missing.
    """
    turbo = library()
    if turbo is None or not data.endswith(b"\xff\xd9"):
        return None
    with _decompressor(turbo) as handle:
        if turbo.tj3DecompressHeader(handle, data, len(data)):
            return None
        subsampling, precision, colorspace, lossless, height, width = (
            turbo.tj3Get(handle, each) for each in (_SUBSAMPLING, _PRECISION, _COLORSPACE, _LOSSLESS, _HEIGHT, _WIDTH)
        )
    if precision != 8 or lossless or colorspace not in (_YCBCR, _GRAY) or not 0 <= subsampling < len(_UNITS):
        return None
    return Header(height, width, subsampling)


def decode_part(
    data: bytes, header: Header, top: int, left: int, height: int, width: int, shrink: int = 1
) -> NDArray[np.uint8] | None:
    """Decode a rectangle of a JPEG, bit for bit as decoding the whole image would.

    Args:
        data: Contents of the file.
        header: Its header, by `read_header`.
        top: First row, in pixels of the shrunken image, like the following.
        left: First column.
        height: Number of rows.
        width: Number of columns.
        shrink: 1, 2, 4 or 8: divides the image's height and width (rounded up), by decoding fewer frequencies.

    Returns:
        uint8 [height, width, 3], RGB; not contiguous. None if libjpeg-turbo reports an error.
    """
    turbo = library()
    assert turbo is not None
    margin, unit = _MARGINS[header.subsampling], _UNITS[header.subsampling] // shrink
    first_row, first_column = max(0, top - margin), max(0, left - margin) // unit * unit
    end_row = min(-(-header.height // shrink), top + height + margin)
    end_column = min(-(-header.width // shrink), left + width + margin)
    region = _Region(first_column, first_row, end_column - first_column, end_row - first_row)
    pixels = np.empty((region.height, region.width, 3), np.uint8)
    with _decompressor(turbo) as handle:
        failed = (
            turbo.tj3Set(handle, _STOP_ON_WARNING, 1)
            or turbo.tj3DecompressHeader(handle, data, len(data))
            or turbo.tj3SetScalingFactor(handle, _Factor(1, shrink))
            or turbo.tj3SetCroppingRegion(handle, region)
            or turbo.tj3Decompress8(handle, data, len(data), pixels.ctypes.data, 0, _RGB)
        )
    if failed:
        return None
    top, left = top - first_row, left - first_column
    return pixels[top : top + height, left : left + width]


def _shipped() -> list[str]:
    """Return the library files in the package `turbojpeg`; its Python functions cannot decode a part."""
    try:
        files = metadata.files("turbojpeg") or []
    except metadata.PackageNotFoundError:
        return []
    return [str(file.locate()) for file in files if file.name.startswith("libturbojpeg")]


@contextmanager
def _decompressor(turbo: ctypes.CDLL) -> Iterator[int]:
    """Yield a decompressor. It keeps its settings, so each image gets a new one; this takes a microsecond."""
    handle = turbo.tj3Init(_DECOMPRESS)
    if not handle:
        raise MemoryError("libjpeg-turbo has no memory for a decompressor")
    try:
        yield handle
    finally:
        turbo.tj3Destroy(handle)
