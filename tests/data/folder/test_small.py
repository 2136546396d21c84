"""Small images of one size in folders: they stay as they are, in memory, whatever their format."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inq_ray.data.augment.crop_flip import CropFlip
from inq_ray.data.folder.source import FolderSource
from inq_ray.data.memory_set import ImageSet
from inq_ray.data.preprocessing import Augmentation, Preprocessing
from inq_ray.data.source import open_source
from tests.data.folders import make_folder, make_stable
from tests.data.parquet_files import random_images
from tests.data.pictures import encode

PIXELS = random_images(6, height=20, width=12)


def write(root: Path, kind: str = "PNG", pixels: Any = PIXELS, ending: str = "png") -> Path:
    files = {f"train/{'ab'[i % 2]}/{i}.{ending}": encode(pixels[i], kind) for i in range(4)}
    return make_folder(root, files | {f"val/{'ab'[i % 2]}/{i}.{ending}": encode(pixels[i], kind) for i in (4, 5)})


def open_folder(root: Path, preprocessing: Preprocessing | None = None, **augmentation: Any) -> FolderSource:
    source = open_source(
        str(root),
        preprocessing=preprocessing,
        augmentation=Augmentation(**augmentation),
        index_folder=root.parent / "index",
    )
    assert isinstance(source, FolderSource)
    return source


@pytest.mark.parametrize(
    ("kind", "ending"), [("PNG", "png"), ("BMP", "bmp"), ("TIFF", "tif"), ("PPM", "ppm"), ("TIFF", "jpg")]
)
def test_their_pixels_are_kept(tmp_path: Path, kind: str, ending: str) -> None:
    source = open_folder(write(tmp_path / "set", kind, ending=ending))
    info = source.info
    assert (info.channels, info.height, info.width, info.is_streamed, source.notes) == (3, 20, 12, False, ())
    train, test = source.split("train"), source.split("test")
    assert isinstance(train, ImageSet)
    assert train.crop_flip == CropFlip(padding=2, flip=True)
    order = [0, 2, 1, 3]  # by class, then by name
    assert np.array_equal(train.fetch(torch.arange(4), None).images, PIXELS[order].transpose(0, 3, 1, 2))
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(test.fetch(torch.arange(2), None).images, PIXELS[4:].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_gray_stays_gray(tmp_path: Path, kind: type) -> None:
    gray = PIXELS[..., 0]
    root = write(tmp_path / "set", pixels=gray.astype(kind) * (257 if kind is np.uint16 else 1))
    source = open_folder(root, Preprocessing(mean=(0.1, 0.2, 0.3)))
    assert (source.info.channels, source.info.mean) == (1, (0.2,))
    train = source.split("train")
    assert isinstance(train, ImageSet)
    assert not train.crop_flip.flip
    assert np.array_equal(source.split("test").fetch(torch.arange(2), None).images[:, 0], gray[4:])
    colored = open_folder(root, Preprocessing(channels=3)).split("test").fetch(torch.arange(2), None).images
    assert np.array_equal(colored, np.stack([gray[4:]] * 3, 1))
    sized = Preprocessing(crop_size=12, resize_size=12, is_sized=True)
    streamed = open_folder(root, sized)
    assert (streamed.info.channels, streamed.info.is_streamed) == (1, True)
    assert np.array_equal(streamed.split("test").fetch(torch.arange(2), None).images[:, 0], gray[4:, 4:16])


def test_colors_become_gray_where_that_is_asked_for(tmp_path: Path) -> None:
    images = open_folder(write(tmp_path / "set"), Preprocessing(channels=1)).split("test")
    expected = np.rint(PIXELS[4:] @ np.array([0.299, 0.587, 0.114]))
    assert np.abs(images.fetch(torch.arange(2), None).images[:, 0].numpy() - expected).max() <= 1


def test_a_size_that_is_asked_for_is_made(tmp_path: Path) -> None:
    info = open_folder(write(tmp_path / "set"), Preprocessing(crop_size=8, resize_size=9, is_sized=True)).info
    assert (info.height, info.width, info.is_streamed) == (8, 8, True)


def test_flip(tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    for flip in (True, False):
        train = open_folder(root, flip=flip).split("train")
        assert isinstance(train, ImageSet)
        assert train.crop_flip.flip == flip


def test_images_of_several_or_large_sizes_are_resized_and_that_is_said(tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    (root / "train/a/2.png").write_bytes(encode(random_images(1, height=30, width=40)[0]))
    source = open_folder(root)
    assert source.info.is_streamed
    resized = "are resized to 256 (shorter side) and cropped to 224x224"
    other = "--crop-size and --resize-size change this"
    assert source.notes == (f"{root}: images of 12x20 to 40x30 pixels {resized}; {other}",)
    large = open_folder(write(tmp_path / "large", pixels=random_images(6, height=100, width=120)))
    assert large.notes[0].endswith("cropped to 224x224; --crop-size 100 --resize-size 100 keeps their size")
    fitting = write(tmp_path / "fitting", pixels=random_images(6, height=256, width=256))
    assert open_folder(fitting).notes == ()


def test_what_was_changed_in_place_is_decoded_anew(tmp_path: Path) -> None:
    root = write(tmp_path / "set", "BMP", ending="bmp")
    make_stable(root)
    assert np.array_equal(open_folder(root).split("test").fetch(torch.arange(1), None).images[0, 0], PIXELS[4, ..., 0])
    (root / "val/a/4.bmp").write_bytes(encode(PIXELS[0], "BMP"))  # of the same size
    assert np.array_equal(open_folder(root).split("test").fetch(torch.arange(1), None).images[0, 0], PIXELS[0, ..., 0])


def test_a_broken_one_is_named(tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    path = root / "val/b/5.png"
    path.write_bytes(path.read_bytes()[:-200])
    source = open_folder(root)
    bad = source.peek("test").bad
    assert [image.name for image in bad] == [str(path)]
    with pytest.raises(ValueError, match=r"val/b/5\.png: the image is damaged"):
        source.split("test")
