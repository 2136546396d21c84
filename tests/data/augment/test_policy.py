"""Automatic augmentation: torchvision's own transforms under the same seed, and nobody else's generator."""

import typing

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from inq_ray.data.augment.crop_flip import Augmentation
from inq_ray.data.augment.policy import apply_policy
from inq_ray.data.memory_set import ImageSet
from inq_ray.data.preset import IMAGENET_MEAN, AutoAugment, Policy
from inq_ray.data.seeded import counter_hash
from tests.data.pictures import photo

KINDS = [kind for kind in typing.get_args(AutoAugment) if kind != "none"]


def image(channels: int = 3) -> Tensor:
    pixels = torch.from_numpy(np.array(photo(40, 32))).permute(2, 0, 1)
    return pixels[:channels]


def reference(kind: str, erasing: float, mean: tuple[float, ...]) -> v2.Compose:
    """As in torchvision's references/classification/presets.py, on uint8."""
    augment = {
        "none": v2.Identity(),
        "randaugment": v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR, magnitude=9),
        "trivialaugment": v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR),
        "augmix": v2.AugMix(interpolation=v2.InterpolationMode.BILINEAR, severity=3),
        "autoaugment": v2.AutoAugment(
            policy=v2.AutoAugmentPolicy("imagenet"), interpolation=v2.InterpolationMode.BILINEAR
        ),
    }[kind]
    return v2.Compose([augment, v2.RandomErasing(p=erasing, value=[round(255 * value) for value in mean])])


def by_torchvision(transform: v2.Compose, image: Tensor, sample: int, seed: int, epoch: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(counter_hash("policy", seed, epoch, np.array([sample]))[0]))
        return transform(image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("erasing", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_it_is_torchvisions_transform(kind: AutoAugment, erasing: float, channels: int) -> None:
    policy, mean = Policy(auto_augment=kind, random_erasing=erasing), IMAGENET_MEAN[:channels]
    transform = reference(kind, erasing, mean)
    original = image(channels)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    changed = 0
    for sample in range(12):
        augmented = apply_policy(original, policy, mean, sample, 5, 2)
        assert augmented.dtype == torch.uint8
        if erasing or kind != "none":
            assert torch.equal(augmented, by_torchvision(transform, original, sample, 5, 2))
        changed += not torch.equal(augmented, original)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(original, image(channels))
    assert (changed > 2) == (erasing > 0 or kind != "none")


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_of_seed_epoch_and_sample(kind: AutoAugment) -> None:
    policy = Policy(auto_augment=kind, random_erasing=0.3)

    def augment(sample: int, seed: int, epoch: int) -> Tensor:
        return apply_policy(image(), policy, IMAGENET_MEAN, sample, seed, epoch)

    forwards = [augment(sample, 1, 1) for sample in range(10)]
    torch.rand(3)
    backwards = [augment(sample, 1, 1) for sample in reversed(range(10))][::-1]
    assert all(map(torch.equal, forwards, backwards))
    for seed, epoch in ((2, 1), (1, 2)):
        assert not all(torch.equal(forwards[sample], augment(sample, seed, epoch)) for sample in range(10))


def test_a_set_in_memory_augments_after_crop_and_flip() -> None:
    crop_flip, policy = Augmentation(padding=2, flip=True), Policy(auto_augment="trivialaugment", random_erasing=0.5)
    stored, samples = torch.stack([image().roll(place) for place in range(6)]), torch.tensor([4, 0, 5])
    images = ImageSet(stored, torch.arange(6), crop_flip, policy, IMAGENET_MEAN)
    cropped = crop_flip(stored[samples], samples, 1, 2)
    expected = [
        apply_policy(each, policy, IMAGENET_MEAN, sample, 1, 2)
        for each, sample in zip(cropped, samples.tolist(), strict=True)
    ]
    assert torch.equal(images.fetch(samples, (1, 2)).images, torch.stack(expected))
    assert torch.equal(images.fetch(samples, None).images, stored[samples])


def test_nothing_to_do_is_free() -> None:
    original = image()
    assert apply_policy(original, Policy(), IMAGENET_MEAN, 0, 0, 0) is original


def test_erased_pixels_are_the_mean_as_after_normalization() -> None:
    """The reference erases normalized images with 0; half a level is what rounding the mean may cost."""
    mean, std = IMAGENET_MEAN, (0.229, 0.224, 0.225)
    policy, original = Policy(random_erasing=1.0), torch.full((3, 30, 40), 255, dtype=torch.uint8)
    normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    for sample in range(10):
        ours = normalize(apply_policy(original, policy, mean, sample, 0, 0))
        theirs = by_torchvision(v2.Compose([normalize, v2.RandomErasing(p=1.0)]), original, sample, 0, 0)
        assert (theirs == 0).any()
        assert (ours - theirs).abs().max() <= 0.5 / 255 / min(std) + 1e-6
        assert torch.equal(ours == normalize(original), theirs == normalize(original))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_interpolation_works(kind: AutoAugment, interpolation: typing.Any) -> None:
    for sample in range(10):
        apply_policy(image(), Policy(auto_augment=kind), IMAGENET_MEAN, sample, 0, 0, interpolation)
