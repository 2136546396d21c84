"""ImageNet images from files to batches of uint8 on one core: this package, and torchvision's ImageFolder with Pillow.

The 250 images of the sample next to the checkout, in the page cache. The crops are the same for all. Validation is
bit for bit the same. Inputs of a part's row are prepared before, and not timed.
"""

import io
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from PIL import Image
from timing import report
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from inq_ray.benchmark.turns import Case, take_turns
from inq_ray.data.augment.image_transform import largest_shrink, resize_square
from inq_ray.data.augment.random_resized_crop import draw_crop
from inq_ray.data.decode.picture import Box, Picture
from inq_ray.data.preprocessing import Augmentation, Preprocessing
from inq_ray.data.source import open_source

SAMPLE = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "imagenet_sample"
PREPROCESSING, AUGMENTATION = Preprocessing(), Augmentation()
SIZE = PREPROCESSING.train_size
BATCH = 50
REFERENCE = "torchvision, training"


def write_files(folder: Path) -> list[Path]:
    """Write the sample twice, as train/ and val/ of ten classes; return the training files in torchvision's order."""
    files = sorted(SAMPLE.glob("*.parquet"))
    images = [row["bytes"] for file in files for row in pq.read_table(file).column("image").to_pylist()]
    for split in ("train", "val"):
        for number, data in enumerate(images):
            path = folder / split / f"n{number // 25:08d}" / f"{number:08d}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return sorted((folder / "train").glob("*/*"))


def crop_of(height: int, width: int, number: int) -> tuple[Box, bool]:
    """Return the crop of an image, and whether it is mirrored."""
    return draw_crop(height, width, AUGMENTATION, number, 0, 0)


class SameCrops:
    """torchvision's transform of training images, called in order; with this package's crops."""

    def __init__(self) -> None:
        self._number = 0

    def __call__(self, image: Any) -> Tensor:
        """Return uint8 [3, SIZE, SIZE] for a Pillow image, or a uint8 tensor."""
        height, width = functional.get_size(image)
        box, mirrored = crop_of(height, width, self._number)
        self._number += 1
        image = functional.resized_crop(image, *box, [SIZE, SIZE], InterpolationMode.BILINEAR, antialias=True)
        image = functional.horizontal_flip(image) if mirrored else image
        return image if isinstance(image, Tensor) else functional.pil_to_tensor(image)


def middle() -> Callable[[Any], Tensor]:
    """Return torchvision's validation transform, without normalization."""
    return v2.Compose(
        [v2.Resize(PREPROCESSING.resize_size, antialias=True), v2.CenterCrop(PREPROCESSING.crop_size), v2.PILToTensor()]
    )


def by_image_folder(folder: Path, transform: Callable[[Any], Tensor], **options: Any) -> None:
    """Make all batches with torchvision's ImageFolder."""
    images = ImageFolder(folder, transform=transform, **options)
    for start in range(0, len(images), BATCH):
        default_collate([images[number] for number in range(start, min(start + BATCH, len(images)))])


def decode_by_torchvision(path: str) -> Tensor:
    """Decode with torchvision's own functions, which are deprecated in newer releases."""
    from torchvision.io import ImageReadMode, decode_image

    with warnings.catch_warnings(action="ignore"):
        return decode_image(path, ImageReadMode.RGB)


def wholes(folder: Path) -> dict[str, Case]:
    """Return the cases from files to batches."""
    source = open_source(str(folder), preprocessing=PREPROCESSING, augmentation=AUGMENTATION, index_folder=folder)
    train, test = source.split("train"), source.split("test")
    batches = torch.arange(len(train)).split(BATCH)
    return {
        REFERENCE: Case(lambda _: by_image_folder(folder / "train", SameCrops())),
        "torchvision.io and v2, training": Case(
            lambda _: by_image_folder(folder / "train", SameCrops(), loader=decode_by_torchvision)
        ),
        "ours, training": Case(lambda _: [train.fetch(batch, (0, 0)) for batch in batches]),
        "torchvision, validation": Case(lambda _: by_image_folder(folder / "val", middle())),
        "ours, validation": Case(lambda _: [test.fetch(batch, None) for batch in batches]),
    }


def parts_of_pillow(blobs: list[bytes]) -> Iterator[tuple[str, Case]]:
    """Yield decoding, transforms and collation of training by Pillow and torchvision."""

    def decode() -> list[Image.Image]:
        return [Image.open(io.BytesIO(blob)).convert("RGB") for blob in blobs]

    def transform(images: list[Image.Image]) -> list[Tensor]:
        return list(map(SameCrops(), images))

    images = decode()
    tensors = transform(images)
    yield "Pillow's decode", Case(lambda _: decode())
    yield "Pillow's transform", Case(lambda _: transform(images))
    yield (
        "torchvision's collate",
        Case(lambda _: [default_collate(tensors[start : start + BATCH]) for start in range(0, len(tensors), BATCH)]),
    )


def parts_of_ours(blobs: list[bytes]) -> Iterator[tuple[str, Case]]:
    """Yield the same parts of this package; a crop is drawn before decoding, because only the crop is decoded."""

    def decode() -> list[tuple[Tensor, bool]]:
        decoded = []
        for number, blob in enumerate(blobs):
            picture = Picture(blob)
            box, mirrored = crop_of(picture.height, picture.width, number)
            pixels = picture.part(box, largest_shrink(min(box.height, box.width), SIZE))
            decoded.append((torch.from_numpy(pixels), mirrored))
        return decoded

    def transform(decoded: list[tuple[Tensor, bool]]) -> list[Tensor]:
        images = [(resize_square(pixels, SIZE, PREPROCESSING.interpolation), mirrored) for pixels, mirrored in decoded]
        return [image.flip(2) if mirrored else image for image, mirrored in images]

    decoded = decode()
    pixels = [image.permute(1, 2, 0) for image in transform(decoded)]
    yield "our decode", Case(lambda _: decode())
    yield "our transform", Case(lambda _: transform(decoded))
    yield (
        "our collate",
        Case(lambda _: [torch.stack(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]),
    )


def main() -> None:
    """Measure on one thread, as in a loader worker."""
    if not SAMPLE.is_dir():
        print("skipped: there are no images in ../shared/data/imagenet_sample next to the checkout")
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder))
        blobs = [file.read_bytes() for file in files]
        parts = {"read": Case(lambda _: [file.read_bytes() for file in files])}
        parts.update(parts_of_pillow(blobs))
        parts.update(parts_of_ours(blobs))
        cases = {**wholes(Path(folder)), **{f"  {name}": case for name, case in parts.items()}}
        seconds = take_turns(cases, num_rounds=4)
    notes = {name: f": {len(files) / statistics.median(times):.0f}/s" for name, times in seconds.items()}
    title = f"{len(files)} images of ImageNet, from files to batches of {BATCH}"
    report(title, seconds, reference=REFERENCE, notes=notes)


if __name__ == "__main__":
    main()
