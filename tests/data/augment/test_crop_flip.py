"""Crops and flips: against slicing one image at a time, whatever else is in the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inq_ray.data.augment.crop_flip import CropFlip
from inq_ray.data.preprocessing import Augmentation, PaddingMode
from inq_ray.data.seeded import counter_hash


def by_hand(image: Tensor, sample: int, seed: int, epoch: int, padding: int, flip: bool, mode: str) -> Tensor:
    """Pad by numpy, slice and mirror one image [C, H, W]."""
    bits = int(counter_hash("crop_flip", seed, epoch, np.array([sample]))[0])
    top, left = ((bits >> shift & (2**31 - 1)) * (2 * padding + 1) >> 31 for shift in (0, 31))
    _, height, width = image.shape
    padded = torch.from_numpy(np.pad(image.numpy(), [(0, 0), (padding,) * 2, (padding,) * 2], mode))
    crop = padded[:, top : top + height, left : left + width]
    return crop.flip(2) if flip and bits >> 63 else crop


@given(
    num=st.integers(1, 6),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    padding=st.integers(0, 4),
    mode=st.sampled_from(["constant", "edge", "reflect"]),
    flip=st.booleans(),
    seed=st.integers(0, 2**64),
    epoch=st.integers(0, 1000),
)
def test_batches_are_what_single_images_are(
    num: int, channels: int, size: tuple[int, int], padding: int, mode: PaddingMode, flip: bool, seed: int, epoch: int
) -> None:
    images = torch.randint(0, 256, (num, channels, *size), dtype=torch.uint8)
    samples = torch.randperm(1000)[:num]
    out = CropFlip(padding=padding, flip=flip, mode=mode)(images, samples, seed, epoch)
    assert out.dtype == torch.uint8
    for image, sample, result in zip(images, samples.tolist(), out, strict=True):
        assert torch.equal(result, by_hand(image, sample, seed, epoch, padding, flip, mode))


def test_by_default_an_eighth_of_the_height_is_added() -> None:
    assert CropFlip.of(Augmentation(), (3, 32, 48)) == CropFlip(padding=4, flip=True)
    assert CropFlip.of(Augmentation(), (1, 7, 7)) == CropFlip()
    assert CropFlip.of(Augmentation(), (1, 32, 3)) == CropFlip(padding=4)
    given = Augmentation(crop_padding=5, padding_mode="edge", flip=False)
    assert CropFlip.of(given, (3, 32, 6)) == CropFlip(padding=5, mode="edge")
    with pytest.raises(ValueError, match="--crop-padding 5 must be less than the sides of the images, which have 5x32"):
        CropFlip.of(given, (3, 32, 5))
    with pytest.raises(ValueError, match="--crop-padding 4 must be less than"):
        CropFlip.of(Augmentation(padding_mode="reflect"), (1, 32, 3))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    images, samples = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8), torch.arange(64)
    augment = CropFlip(padding=2, flip=True)
    first = augment(images, samples, 0, 0)
    assert torch.equal(first, augment(images, samples, 0, 0))
    assert not torch.equal(first, augment(images, samples, 0, 1))
    assert not torch.equal(first, augment(images, samples, 1, 0))


def test_crops_and_mirrors_are_evenly_drawn() -> None:
    marked = torch.zeros(9000, 1, 3, 3, dtype=torch.uint8)
    marked[:, :, 1, 1] = 1  # the middle pixel reaches every place of a crop by one pixel
    out = CropFlip(padding=1)(marked, torch.arange(9000), 0, 0)
    counts = out.sum(0).flatten().double()
    assert counts.sum() == 9000
    assert (counts - 1000).abs().max() < 150
    left = torch.zeros(9000, 1, 1, 2, dtype=torch.uint8)
    left[..., 0] = 1
    assert abs(int(CropFlip(flip=True)(left, torch.arange(9000), 0, 0).sum(0)[0, 0, 0]) - 4500) < 200


def test_nothing_to_do_and_input_untouched() -> None:
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    before = images.clone()
    assert CropFlip()(images, torch.arange(4), 0, 0) is images
    CropFlip(padding=2, flip=True)(images, torch.arange(4), 0, 0)
    assert torch.equal(images, before)
