"""JPEGs decoded on a device give the crops of those decoded on the CPU, within rounding, in any company."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from inq_ray.data import jpeg_set
from inq_ray.data.augment.image_transform import ImageTransform
from inq_ray.data.decode import nvjpeg, turbojpeg
from inq_ray.data.encoded import Encoded
from inq_ray.data.encoded_set import EncodedSet
from inq_ray.data.image_set import Images
from inq_ray.data.jpeg_set import JpegSet
from inq_ray.data.loader import Batch, Loader, Request
from inq_ray.data.preprocessing import Augmentation, Preprocessing
from tests.data.pictures import encode, photo

pytestmark = pytest.mark.skipif(turbojpeg.library() is None, reason="there is no libjpeg-turbo 3")

CPU = torch.device("cpu")
SMALL = Preprocessing(crop_size=48, resize_size=56)
JPEG = encode(photo(90, 70), "JPEG", quality=90)


@dataclass(frozen=True)
class Files:
    """Files in memory, whose labels are their numbers; None cannot be read."""

    files: tuple[bytes | None, ...]

    @property
    def groups(self) -> None:
        return

    def __len__(self) -> int:
        return len(self.files)

    def read(self, samples: NDArray[np.int64]) -> list[Encoded]:
        return [Encoded(f"file {each}", self.files[each], each, "lost") for each in samples.tolist()]


def sets_of(
    files: Sequence[bytes | None], preprocessing: Preprocessing = SMALL, augmentation: Augmentation | None = None
) -> tuple[EncodedSet, JpegSet]:
    on_cpu = EncodedSet(Files(tuple(files)), ImageTransform(preprocessing, augmentation or Augmentation()))
    return on_cpu, JpegSet(on_cpu, CPU)


def jpegs(num: int, shortest: int = 60, longest: int = 95) -> list[bytes]:
    """JPEGs of several sizes and subsamplings, some of them gray."""
    random = np.random.default_rng(0)
    made = []
    for number in range(num):
        width, height = random.integers(shortest, longest, 2).tolist()
        image = photo(width, height, number)
        if number % 5 == 4:
            made.append(encode(image.convert("L"), "JPEG", quality=90))
        else:
            made.append(encode(image, "JPEG", quality=90, subsampling=number % 3))
    return made


def both(images: tuple[Images, Images], num: int, augment: tuple[int, int] | None) -> tuple[Batch, Batch]:
    """The same batch of both sets."""
    first, second = (
        next(Loader({"a": each}).batches([Request("a", 3, torch.arange(num), augment)])) for each in images
    )
    assert second.labels.tolist() == first.labels.tolist()
    assert second.step == first.step == 3
    assert second.images.dtype == torch.uint8
    assert second.images.shape == first.images.shape
    return first, second


def difference(first: Tensor, second: Tensor) -> tuple[int, float]:
    """Greatest and mean difference of pixels, of 255."""
    away = (first.int() - second.int()).abs()
    return int(away.max()), float(away.float().mean())


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("augment", [(0, 0), (1, 2), None])
def test_crops_are_the_same_within_rounding(augment: tuple[int, int] | None, interpolation: Any, channels: int) -> None:
    preprocessing = Preprocessing(crop_size=48, resize_size=56, interpolation=interpolation, channels=channels)
    first, second = both(sets_of(jpegs(10), preprocessing), 10, augment)
    greatest, mean = difference(first.images, second.images)
    if interpolation == "nearest" and augment is None:
        assert mean < 1  # Pillow and torch round a few places differently
    else:
        assert greatest <= {"bilinear": 2, "bicubic": 3, "nearest": 0}[interpolation]
        assert mean <= 0.2


def test_a_crop_that_the_cpu_decodes_at_half_the_size_differs_more() -> None:
    augmentation = Augmentation(scale=(0.8, 1.0))
    first, second = both(sets_of(jpegs(5, 130, 180), SMALL, augmentation), 5, (0, 0))
    greatest, mean = difference(first.images, second.images)
    assert 2 < greatest < 120
    assert mean < 4


MIXED = [
    JPEG,
    encode(photo(80, 60)),
    None,
    JPEG[:-300],
    encode(photo(64, 66), "JPEG", progressive=True),
    encode(photo(64, 66).convert("CMYK"), "JPEG"),
    b"no image",
    b"",
    encode(photo(66, 64, 3).convert("L"), "JPEG"),
    JPEG[:200] + bytes(60) + JPEG[260:],
    encode(photo(60_000, 1), "JPEG"),
    encode(photo(900, 800), "JPEG"),
    encode(photo(70, 64).convert("RGBA"), "WEBP"),
    JPEG,
]


@pytest.mark.parametrize(
    ("augment", "num_workers"), [((0, 0), 0), (None, 0), pytest.param((0, 0), 1, marks=pytest.mark.system)]
)
def test_others_are_decoded_by_the_cpu_and_the_same_are_bad(augment: tuple[int, int] | None, num_workers: int) -> None:
    on_cpu, on_device = sets_of(MIXED)
    read = on_device.read(torch.arange(len(MIXED)), augment)
    for_device = [jpeg.sample for jpeg in read.jpegs if jpeg is not None]
    assert {0, 8, 13} <= set(for_device)
    assert set(for_device).isdisjoint((1, 2, 3, 4, 5, 6, 7, 12))
    request = [Request("a", 0, torch.arange(len(MIXED)), augment)] * 2
    expected = on_cpu.fetch(torch.arange(len(MIXED)), augment)
    for batch in Loader({"a": on_device}, num_workers=num_workers).batches(request):
        assert set(batch.bad) == set(expected.bad)
        assert {each.sample for each in batch.bad} >= {2, 3, 6, 7}
        assert batch.labels.tolist() == expected.labels.tolist()
        for label, mine, other in zip(batch.labels.tolist(), batch.images, expected.images, strict=True):
            greatest, _ = difference(mine, other)
            # The largest image is decoded at a fraction of its size by the CPU, in training.
            assert greatest <= (0 if label not in for_device else 255 if label == 11 and augment else 2), label


@pytest.mark.parametrize("augment", [(0, 0), None])
def test_what_the_device_refuses_the_cpu_decodes(
    augment: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [*jpegs(6), JPEG[:-300]]
    on_cpu, on_device = sets_of(files)
    expected = on_cpu.fetch(torch.arange(7), augment)

    def decode_batch(files: list[Tensor], device: torch.device) -> list[Tensor | None]:
        decoded = nvjpeg_decode(files, device)
        return [None, torch.zeros(3, 2, 2, dtype=torch.uint8), *decoded[2:]]

    nvjpeg_decode = nvjpeg.decode_batch
    monkeypatch.setattr(nvjpeg, "decode_batch", decode_batch)
    samples = on_device.fetch(torch.arange(7), augment)
    assert samples.bad == expected.bad
    assert torch.equal(samples.images[:2], expected.images[:2])
    assert difference(samples.images, expected.images)[0] <= 2

    monkeypatch.setattr(nvjpeg, "takes", bool)
    monkeypatch.setattr(nvjpeg, "decode_batch", lambda files, _: [None] * len(files))
    samples = on_device.fetch(torch.arange(7), augment)
    assert torch.equal(samples.images, expected.images)
    assert samples.bad == expected.bad
    assert samples.labels.tolist() == expected.labels.tolist()


def test_parts_of_a_batch_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, images = sets_of(jpegs(12))
    whole = images.fetch(torch.arange(12), (0, 0))
    sizes: list[int] = []

    def decode_batch(files: list[Tensor], device: torch.device) -> list[Tensor | None]:
        sizes.append(len(files))
        return nvjpeg_decode(files, device)

    nvjpeg_decode = nvjpeg.decode_batch
    monkeypatch.setattr(nvjpeg, "decode_batch", decode_batch)
    for most in (1, 15_000):
        sizes.clear()
        monkeypatch.setattr(nvjpeg, "MAX_PIXELS_AT_ONCE", most)
        assert torch.equal(images.fetch(torch.arange(12), (0, 0)).images, whole.images)
        assert sum(sizes) == 12
        assert max(sizes) == (1 if most == 1 else max(sizes)) < 12


@pytest.mark.parametrize("augment", [(0, 0), None])
def test_batches_without_images(augment: tuple[int, int] | None) -> None:
    first, second = both(sets_of([None, b""]), 2, augment)
    assert len(second.images) == 0
    assert second.bad == first.bad
    both(sets_of([JPEG]), 0, augment)


def test_images_that_are_shrunk_much_are_left_to_the_cpu() -> None:
    large = io.BytesIO()
    Image.new("RGB", (jpeg_set._LARGEST_FACTOR * 56 + 56,) * 2).save(large, "JPEG")
    _, images = sets_of([large.getvalue(), JPEG])
    read = images.read(torch.arange(2), None)
    assert [jpeg is None for jpeg in read.jpegs] == [True, False]


@pytest.mark.gpu
@pytest.mark.parametrize("augment", [(0, 0), None])
def test_nvjpeg_gives_the_same_crops(augment: tuple[int, int] | None) -> None:
    device = torch.device("cuda", 0)
    nvjpeg.check_decoder(device)
    files = [*jpegs(40), *MIXED[:-3]]
    on_cpu, _ = sets_of(files)
    expected = on_cpu.fetch(torch.arange(len(files)), augment)
    request = Request("a", 0, torch.arange(len(files)), augment)
    batches = list(Loader({"a": JpegSet(on_cpu, device)}, num_workers=1, pin_memory=True).batches([request] * 4))
    for batch in batches:
        assert batch.images.device == device
        assert batch.labels.tolist() == expected.labels.tolist()
        assert set(batch.bad) == set(expected.bad)
        assert difference(batch.images.cpu(), expected.images)[1] < 4
        assert torch.equal(batch.images, batches[0].images)
