"""Pixels from bytes: against what was encoded; broken, deep and odd images are told apart."""

import numpy as np
import pytest
from PIL import Image

from inq_ray.data.decode.small import Layout, decode, read_layout
from tests.data.parquet_files import random_images
from tests.data.pictures import encode

PIXELS = random_images(1, height=5, width=7)[0]


def test_colors_exactly() -> None:
    for kind, options in (("PNG", {}), ("BMP", {}), ("TIFF", {}), ("PPM", {}), ("WEBP", {"lossless": True})):
        data = encode(PIXELS, kind, **options)
        layout = read_layout(data)
        assert layout == Layout(3, 5, 7)
        assert layout.num_bytes == 105
        assert np.array_equal(decode(data, layout), PIXELS.transpose(2, 0, 1))


def test_gray_exactly_and_as_colors() -> None:
    gray = PIXELS[..., 0]
    data = encode(gray)
    assert read_layout(data) == Layout(1, 5, 7)
    assert np.array_equal(decode(data, Layout(1, 5, 7)), gray[None])
    assert np.array_equal(decode(data, Layout(3, 5, 7)), np.stack([gray] * 3))


def test_jpeg_is_near() -> None:
    smooth = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    data = encode(smooth, "JPEG")
    assert np.abs(decode(data, Layout(3, 16, 16)).astype(int) - smooth.transpose(2, 0, 1)).max() < 6


def test_transparency_and_palettes_become_colors() -> None:
    image = Image.fromarray(PIXELS)
    alpha = image.copy()
    alpha.putalpha(128)
    assert np.array_equal(decode(encode(alpha), Layout(3, 5, 7)), PIXELS.transpose(2, 0, 1))
    palette = image.quantize(8)
    assert read_layout(encode(palette)) == Layout(3, 5, 7)
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode(encode(palette), Layout(3, 5, 7)), expected)


@pytest.mark.parametrize("data", [b"", b"abc", b"\x89PNG\r\n\x1a\n" + b"0" * 60, b"\xff\xd8\xff" + bytes(20)])
def test_no_image(data: bytes) -> None:
    for function in (read_layout, lambda data: decode(data, Layout(3, 5, 7))):
        with pytest.raises(ValueError, match=r"empty|damaged"):
            function(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_and_damaged(kind: str) -> None:
    pixels = random_images(1, height=64, width=64)[0]
    data = encode(pixels, kind)
    for end in range(1, len(data) - 20, len(data) // 23):
        with pytest.raises(ValueError, match="damaged"):
            decode(data[:end], Layout(3, 64, 64))


def test_damaged_anywhere_is_a_value_error_or_pixels() -> None:
    """Pillow's decoders raise many kinds of errors."""
    data = encode(PIXELS)
    for place in range(len(data)):
        for value in (0, 255, data[place] ^ 1):
            try:
                decoded = decode(data[:place] + bytes([value]) + data[place + 1 :], Layout(3, 5, 7))
            except ValueError:
                continue
            assert decoded.shape == (3, 5, 7)


def test_other_sizes_depths_and_kinds() -> None:
    with pytest.raises(ValueError, match="the image is 7x5, the first ones are 5x7"):
        decode(encode(PIXELS), Layout(3, 7, 5))
    with pytest.raises(ValueError, match=r"has colors .*, but the first one is gray"):
        decode(encode(PIXELS), Layout(1, 5, 7))
    with pytest.raises(ValueError, match="32-bit values"):
        decode(encode(Image.fromarray(PIXELS[..., 0].astype(np.int32)), "TIFF"), Layout(1, 5, 7))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_of_16_bits_the_upper_8_are_kept(kind: str) -> None:
    gray = PIXELS[..., 0]
    data = encode(gray.astype(np.uint16) * 256 + 255, kind)
    assert read_layout(data) == Layout(1, *gray.shape)
    assert (decode(data, Layout(1, *gray.shape))[0] == gray).all()
    assert (decode(data, Layout(3, *gray.shape)) == gray).all()


@pytest.mark.parametrize(("kind", "name"), [("AVIF", "AVIF"), ("JPEG2000", "JPEG 2000")])
def test_formats_that_are_not_read_are_named(kind: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"is {name}, which is not supported: convert it to one of JPEG, PNG"):
        read_layout(encode(PIXELS, kind))
