"""Which files nvJPEG gets; libjpeg-turbo decodes them here, by the same call."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inq_ray.data.decode import nvjpeg, turbojpeg
from inq_ray.data.decode.nvjpeg import check_decoder, decode_batch, takes
from inq_ray.data.decode.picture import Picture
from tests.data.pictures import decode, encode, photo, sample_files

pytestmark = pytest.mark.skipif(turbojpeg.library() is None, reason="there is no libjpeg-turbo 3")

CPU = torch.device("cpu")
JPEG = encode(photo(60, 40), "JPEG", quality=90)


def as_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "gray"])
@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"exif": b"Exif\0\0" + b"\xff\xd9\xff\xda" * 9}])
def test_baseline_jpegs_are_for_nvjpeg(subsampling: str, options: dict[str, Any]) -> None:
    image = photo(61, 37)
    gray = subsampling == "gray"
    options = options if gray else {**options, "subsampling": subsampling}
    data = encode(image.convert("L") if gray else image, "JPEG", optimize=True, **options)
    assert takes(data)
    (pixels,) = decode_batch([as_tensor(data)], CPU)
    assert pixels is not None
    np.testing.assert_array_equal(pixels.permute(1, 2, 0), decode(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff\xd9",
        encode(photo(60, 40)),
        encode(photo(60, 40).convert("CMYK"), "JPEG"),
        encode(photo(60, 40), "JPEG", progressive=True),
        encode(photo(60, 40), "JPEG", keep_rgb=True),
        JPEG[:-400],
        JPEG[:-400] + b"\xff\xc4\xff\xd9",
        JPEG + JPEG,
        JPEG + b"\0",
        JPEG.replace(b"\xff\xc4", b"\xff\xc4\0\x13\0" + b"\xff" * 16 + b"\xff\xc4", 1),
    ],
    ids=["empty", "no frame", "PNG", "CMYK", "progressive", "RGB", "short", "marker", "two", "more", "tables"],
)
def test_others_are_for_the_cpu(data: bytes) -> None:
    assert not takes(data)


def test_what_nvjpeg_gets_is_never_broken(shared_data: Path) -> None:
    """Whatever happens to a file, Pillow finds no fault with one that nvJPEG gets."""
    random = np.random.default_rng(0)
    taken = 0
    for data in [*sample_files(shared_data)[:5], *[JPEG] * 40]:
        assert takes(data)
        for _ in range(5):
            damaged = bytearray(data)
            for place in random.integers(0, len(data), random.integers(1, 4)):
                damaged[place] = random.integers(256)
            if takes(bytes(damaged)):
                taken += 1
                Picture(bytes(damaged)).pixels()
    assert taken > 100


def test_a_refused_file_does_not_cost_the_others() -> None:
    with warnings.catch_warnings(action="error"):
        decoded = decode_batch([as_tensor(JPEG), as_tensor(JPEG[:300]), as_tensor(JPEG)], CPU)
    assert decoded[1] is None
    for pixels in (decoded[0], decoded[2]):
        assert pixels is not None
        np.testing.assert_array_equal(pixels.permute(1, 2, 0), decode(JPEG))


def test_a_machine_without_a_decoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_decoder(CPU)

    def fail(*_: Any) -> Any:
        raise RuntimeError("not compiled with nvJPEG support\nand more")

    monkeypatch.setattr("torchvision.io.decode_jpeg", fail)
    with pytest.raises(ValueError, match=r"^--jpeg-decoder nvjpeg: torchvision cannot decode on cpu: not.*cpu$"):
        check_decoder(CPU)
    monkeypatch.setattr(nvjpeg, "library", lambda: None)
    with pytest.raises(ValueError, match=r"needs libjpeg-turbo 3 or newer, .*: pip install turbojpeg"):
        check_decoder(CPU)
