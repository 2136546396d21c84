"""What is wrong with images is found before anything starts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from inq_ray.data.decode import turbojpeg
from inq_ray.data.jpeg_set import JpegSet
from inq_ray.training.config import RunConfig
from inq_ray.training.task.build import build_task
from inq_ray.training.task.check import check
from tests.data.folders import make_folder
from tests.data.parquet_files import random_images
from tests.data.pictures import encode

BLOBS = [encode(pixels) for pixels in random_images(4, height=40, width=40)]


def config_of(root: Path, **data: object) -> RunConfig:
    return RunConfig().replace(
        data={"data": str(root), **data},
        network={"arch": "cifar_resnet20"},
        training={"float_epochs": 1, "batch_size": 2},
        output={"storage_path": str(root.parent / "runs")},
    )


def write(root: Path, bad: bytes) -> Path:
    files = {f"{split}/{name}/{i}.png": BLOBS[i] for split in ("train", "val") for name in "ab" for i in range(2)}
    return make_folder(root, files | {"val/b/1.png": bad})


@pytest.mark.parametrize("bad", [b"", b"no image", BLOBS[0][:-300]])
def test_a_broken_image_is_named(tmp_path: Path, bad: bytes) -> None:
    root = write(tmp_path / "set", bad)
    with pytest.raises(
        ValueError, match=r"1 of the first 4 images cannot be read \(.*val/b/1\.png: .*\): repair or remove"
    ):
        check(config_of(root))
    sized = config_of(root, crop_size=32)
    with pytest.raises(ValueError, match="repair or remove it, or leave out such images with --skip-bad-images N"):
        check(sized)
    source, _ = check(sized.replace(data={"skip_bad_images": 1}))
    assert source.info.height == 32


def test_none_that_can_be_read_is_refused_whatever_may_be_left_out(tmp_path: Path) -> None:
    files = {f"{split}/a/{i}.jpg": encode(random_images(1)[0], "AVIF") for split in ("train", "val") for i in range(2)}
    config = config_of(make_folder(tmp_path / "set", files), skip_bad_images=9)
    with pytest.raises(
        ValueError, match=r"2 of the first 2 images cannot be read .*the file is AVIF, which is not supported"
    ):
        check(config)


def test_gray_images_and_a_network_of_colors(tmp_path: Path) -> None:
    gray = [encode(pixels[..., 0]) for pixels in random_images(2)]
    root = make_folder(
        tmp_path / "set", {f"{split}/a/{i}.png": gray[i] for split in ("train", "val") for i in range(2)}
    )
    assert check(config_of(root))[0].info.channels == 1
    assert check(config_of(root, channels=3))[0].info.channels == 3


def of_channels(channels: int, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))


def for_gray(num_classes: int) -> nn.Module:
    return of_channels(1, num_classes)


def for_colors(num_classes: int) -> nn.Module:
    return of_channels(3, num_classes)


def for_more(num_classes: int) -> nn.Module:
    return of_channels(4, num_classes)


@pytest.mark.parametrize(
    ("network", "is_gray", "end"),
    [
        ("for_gray", False, "; --channels 1 converts images to gray"),
        ("for_colors", True, "; --channels 3 gives gray images three channels"),
        ("for_more", False, "got 3 channels instead"),
        ("for_more", True, "got 1 channels instead"),
    ],
)
def test_a_network_for_other_channels_is_refused_with_the_flag_that_helps(
    tmp_path: Path, network: str, is_gray: bool, end: str
) -> None:
    blobs = [encode(pixels[..., 0] if is_gray else pixels) for pixels in random_images(2)]
    root = make_folder(
        tmp_path / "set",
        {f"{split}/{name}/{i}.png": blobs[i] for split in ("train", "val") for name in "ab" for i in range(2)},
    )
    config = config_of(root).replace(network={"arch": f"{__name__}:{network}"})
    with pytest.raises(ValueError, match=f"{end}$"):
        check(config)
    if "--channels" in end:
        check(config.replace(data={"channels": 1 if network == "for_gray" else 3}))


@pytest.mark.skipif(turbojpeg.library() is None, reason="there is no libjpeg-turbo 3")
def test_nvjpeg_is_for_jpegs_that_are_read_on_demand(tmp_path: Path) -> None:
    files = {f"{split}/{name}/{i}.png": BLOBS[i] for split in ("train", "val") for name in "ab" for i in range(2)}
    by_nvjpeg: dict[str, Any] = {"data": {"jpeg_decoder": "nvjpeg"}, "cluster": {"use_gpu": True}}
    pngs = config_of(make_folder(tmp_path / "set", files)).replace(**by_nvjpeg)
    with pytest.raises(ValueError, match="--jpeg-decoder has no effect: small images are kept in memory, and decoded"):
        check(pngs)
    pngs = pngs.replace(data={"crop_size": 32})
    with pytest.raises(ValueError, match=r"none of 4 images of .*set is a JPEG that it decodes"):
        check(pngs)

    photos = [encode(pixels, "JPEG") for pixels in random_images(4, height=60, width=56)]
    files = {name.replace("png", "jpg"): photos[i % 4] for i, name in enumerate(files)} | {"val/b/2.png": BLOBS[0]}
    config = config_of(make_folder(tmp_path / "photos", files), crop_size=32).replace(**by_nvjpeg)
    source, _ = check(config)
    # Here by the CPU's decoder, which torchvision calls in the same way.
    mine, other = (
        build_task(each, torch.device("cpu"), source=source)
        for each in (config, config.replace(data={"jpeg_decoder": "cpu"}))
    )
    for split, num in (("train", 4), ("validation", 5)):
        assert isinstance(mine.loader.sets[split], JpegSet)
        augment = (0, 0) if split == "train" else None
        first, second = (each.loader.sets[split].fetch(torch.arange(num), augment) for each in (mine, other))
        assert first.labels.tolist() == second.labels.tolist()
        assert (first.images.int() - second.images.int()).abs().max() <= 2
