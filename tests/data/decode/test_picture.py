"""Image files of every kind: the readable ones as Pillow reads them, the others refused in one line."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from inq_ray.data.decode import turbojpeg
from inq_ray.data.decode.picture import MAX_PIXELS, Box, Picture
from tests.data.pictures import decode, encode, photo, png

PHOTO = photo(60, 45)
JPEG = encode(PHOTO, "JPEG", quality=92)


def ycck() -> bytes:
    """A CMYK JPEG whose Adobe marker says that its colors are turned into YCCK."""
    data = bytearray(encode(PHOTO.convert("CMYK"), "JPEG"))
    place = data.index(b"Adobe")
    data[place + 11] = 2
    return bytes(data)


def palette_with_alpha() -> bytes:
    image = PHOTO.quantize(16)
    return encode(image, "PNG", transparency=bytes(range(0, 256, 16)))


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(PHOTO, "JPEG", exif=exif)


READABLE = {
    "JPEG": JPEG,
    "progressive": encode(PHOTO, "JPEG", progressive=True),
    "gray JPEG": encode(PHOTO.convert("L"), "JPEG"),
    "CMYK": encode(PHOTO.convert("CMYK"), "JPEG"),
    "YCCK": ycck(),
    "RGB JPEG": encode(PHOTO, "JPEG", keep_rgb=True),
    "EXIF turned": turned(),
    "bytes after the end": JPEG + b"\0" * 9,
    "cut off, with an end": JPEG[: len(JPEG) // 2] + b"\xff\xd9",
    "PNG, whatever its name": encode(PHOTO, "PNG"),
    "LA": encode(PHOTO.convert("LA"), "PNG"),
    "RGBA": encode(PHOTO.convert("RGBA"), "PNG"),
    "palette": encode(PHOTO.quantize(16), "PNG"),
    "palette with alpha": palette_with_alpha(),
    "one bit": encode(PHOTO.convert("1"), "PNG"),
    "WebP": encode(PHOTO, "WEBP"),
    "GIF": encode(PHOTO, "GIF"),
    "BMP": encode(PHOTO, "BMP"),
    "PPM": encode(PHOTO, "PPM"),
    "TIFF": encode(PHOTO, "TIFF"),
    "16 bit colors": png(5, 4, 16, 2, (b"\0" + bytes(range(30))) * 4),
}

BROKEN = {
    "no bytes": (b"", "empty"),
    "zeros": (b"\0" * 1000, "not an image"),
    "text": (b"<html>404 not found</html>", "XML or HTML page"),
    "the start of a JPEG": (JPEG[:20], "damaged|not an image"),
    "cut off": (JPEG[: len(JPEG) // 2], "truncated"),
    "cut off at the very end": (JPEG[:-2], "truncated"),
    "cut off PNG": (encode(PHOTO, "PNG")[:-900], "damaged"),
    "giant JPEG": (JPEG.replace(b"\0\x2d\0\x3c", b"\xff\xff\xff\xff"), "make it smaller|exceeds"),
    "giant PNG": (png(30_000, 30_000, 8, 2, b""), "exceeds"),
    "large PNG": (png(10_000, 10_000, 8, 2, b""), "make it smaller"),
    "numbers": (encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "32-bit"),
}


@pytest.fixture(params=["libjpeg-turbo", "Pillow alone"], autouse=True)
def _decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds with libjpeg-turbo and without."""
    if request.param == "Pillow alone":
        monkeypatch.setattr(turbojpeg, "library", lambda: None)


@pytest.mark.parametrize("name", READABLE)
def test_pixels_are_those_of_pillow(name: str) -> None:
    data = READABLE[name]
    with warnings.catch_warnings(action="ignore"):
        expected = decode(data)
    picture = Picture(data)
    assert (picture.height, picture.width, 3) == expected.shape
    np.testing.assert_array_equal(picture.pixels(), expected)
    np.testing.assert_array_equal(picture.part(Box(1, 2, 3, 2)), expected[1:4, 2:4])
    np.testing.assert_array_equal(picture.pixels(), expected)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_refused_in_one_line(name: str) -> None:
    data, reason = BROKEN[name]
    for read in (lambda: Picture(data).part(Box(0, 0, 1, 1)), lambda: Picture(data).pixels()):
        with pytest.raises(ValueError, match=reason) as caught:
            read()
        assert "\n" not in str(caught.value)
        assert " at 0x" not in str(caught.value)
        assert len(str(caught.value)) < 140


def test_gray_of_16_bits_keeps_the_upper_8() -> None:
    values = np.arange(0, 65536, 13, dtype=np.uint16)[:5000].reshape(50, 100)
    picture = Picture(encode(Image.fromarray(values), "PNG"))
    np.testing.assert_array_equal(picture.pixels(), np.repeat((values >> 8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("kind", ["JPEG", "CMYK", "gray JPEG", "progressive"])
@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_jpeg_at_a_fraction_of_its_size(kind: str, shrink: int) -> None:
    data = READABLE[kind]
    image = Image.open(io.BytesIO(data))
    image.draft(None, (image.width // shrink, image.height // shrink))
    expected = np.asarray(image.convert("RGB"))
    part = Picture(data).part(Box(8, 16, 24, 32), shrink)
    np.testing.assert_array_equal(part, expected[8 // shrink : 32 // shrink, 16 // shrink : 48 // shrink])


def test_others_come_in_full() -> None:
    picture = Picture(READABLE["PNG, whatever its name"])
    np.testing.assert_array_equal(picture.part(Box(8, 16, 24, 32), 4), np.asarray(PHOTO)[8:32, 16:48])


def test_the_limit_is_that_of_pillow() -> None:
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS
