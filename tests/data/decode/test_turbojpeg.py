"""Decoding a part of a JPEG: against Pillow, which decodes all of it."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from inq_ray.data.decode import turbojpeg
from inq_ray.data.decode.turbojpeg import decode_part, read_header
from tests.data.pictures import encode, photo, sample_files

pytestmark = pytest.mark.skipif(turbojpeg.library() is None, reason="there is no libjpeg-turbo 3")

SIZES = [(33, 17), (100, 75), (16, 16), (7, 90), (250, 190)]


def whole(data: bytes, shrink: int) -> NDArray[np.uint8]:
    """All of the image by Pillow, at a fraction of its size."""
    image = Image.open(io.BytesIO(data))
    if shrink > 1:
        image.draft(None, (image.width // shrink, image.height // shrink))
    return np.asarray(image.convert("RGB"))


def check_part(data: bytes, shrink: int, rng: np.random.Generator) -> None:
    header = read_header(data)
    assert header is not None
    expected = whole(data, shrink)
    top, bottom = np.sort(rng.choice(expected.shape[0] + 1, 2, replace=False)).tolist()
    left, right = np.sort(rng.choice(expected.shape[1] + 1, 2, replace=False)).tolist()
    part = decode_part(data, header, top, left, bottom - top, right - left, shrink)
    assert part is not None
    np.testing.assert_array_equal(part, expected[top:bottom, left:right])


@given(
    size=st.sampled_from(SIZES),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0", "gray"]),
    progressive=st.booleans(),
    shrink=st.sampled_from([1, 2, 4, 8]),
    seed=st.integers(0, 2**32),
)
def test_a_part_has_the_bits_of_the_whole(
    size: tuple[int, int], subsampling: str, progressive: bool, shrink: int, seed: int
) -> None:
    image = photo(*size)
    if subsampling == "gray":
        data = encode(image.convert("L"), "JPEG", progressive=progressive)
    else:
        data = encode(image, "JPEG", subsampling=subsampling, progressive=progressive, quality=85)
    shrink = min(shrink, *(1 << (side.bit_length() - 1) for side in size))
    check_part(data, shrink, np.random.default_rng(seed))


def test_real_images(shared_data: Path) -> None:
    rng = np.random.default_rng(0)
    for place, data in enumerate(sample_files(shared_data)):
        check_part(data, 1 if place % 5 else 2, rng)


def test_rare_subsampling() -> None:
    package = pytest.importorskip("turbojpeg")
    rng = np.random.default_rng(0)
    for kind in ("Y440", "Y411", "Y441"):
        for size in SIZES:
            data = package.compress(np.asarray(photo(*size)), 90, getattr(package.SAMP, kind))
            for shrink in (1, 2, 4):
                check_part(bytes(data), shrink, rng)


def test_others_are_left_to_pillow() -> None:
    image = photo(40, 30)
    data = encode(image, "JPEG")
    assert read_header(data) is not None
    for other in (
        b"",
        b"text",
        b"\xff\xd8\xff\xd9",
        data[:-2],
        data[: len(data) // 2],
        data + b"\0",
        encode(image, "PNG"),
        encode(image.convert("CMYK"), "JPEG"),
    ):
        assert read_header(other) is None


def test_a_fault_is_seen() -> None:
    data = bytearray(encode(photo(80, 60), "JPEG", quality=95))
    data[len(data) // 2 :] = b"\xff\xd9"
    header = read_header(bytes(data))
    assert header is not None
    assert decode_part(bytes(data), header, 0, 0, 60, 80) is None
    assert decode_part(bytes(data), header, 0, 0, 8, 8) is not None


def test_broken_files_do_not_crash() -> None:
    rng = np.random.default_rng(0)
    good = encode(photo(60, 50), "JPEG", quality=90, subsampling="4:2:0")
    for _ in range(300):
        data = bytearray(good)
        for place in rng.integers(2, len(data) - 2, 4):
            data[place] = rng.integers(256)
        header = read_header(bytes(data))
        if header is not None and header.height * header.width < 10**6:
            height, width = (int(rng.integers(1, side + 1)) for side in (header.height, header.width))
            decode_part(bytes(data), header, 0, header.width - width, height, width)
