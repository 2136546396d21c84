"""Mixup and CutMix: torchvision's own under the same seed; labels that sum to 1."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from inq_ray.data.augment.batch_mix import BatchMix
from inq_ray.data.seeded import counter_hash

NUM_CLASSES = 7


def batch(num: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(num, 3, 12, 10, generator=generator)
    return images, torch.randint(NUM_CLASSES, (num,), generator=generator)


def by_torchvision(mixup: float, cutmix: float, key: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """As `get_mixup_cutmix` in torchvision's references/classification/transforms.py."""
    choices: list[v2.Transform] = []
    if mixup > 0:
        choices.append(v2.MixUp(alpha=mixup, num_classes=NUM_CLASSES))
    if cutmix > 0:
        choices.append(v2.CutMix(alpha=cutmix, num_classes=NUM_CLASSES))
    seed, epoch, step, rank = key
    of_step = int(counter_hash("batch_mix", seed, epoch, np.array([step]))[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(counter_hash("batch_mix", of_step, 0, np.array([rank]))[0]))
        return v2.RandomChoice(choices)(*batch())


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_it_is_torchvisions(mixup: float, cutmix: float) -> None:
    mix = BatchMix(mixup, cutmix, NUM_CLASSES)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    images, labels = batch()
    for step in range(20):
        mixed, soft = mix(images, labels, (3, 1, step, 2))
        expected_images, expected_labels = by_torchvision(mixup, cutmix, (3, 1, step, 2))
        assert torch.equal(mixed, expected_images)
        assert torch.equal(soft, expected_labels)
        assert mixed.dtype == soft.dtype == torch.float32
        torch.testing.assert_close(soft.sum(1), torch.ones(len(labels)))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, batch()[0])
    assert torch.equal(labels, batch()[1])


def test_every_part_of_the_key_counts() -> None:
    mix = BatchMix(1.0, 1.0, NUM_CLASSES)
    keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 1, 1)]
    drawn = {key: mix(*batch(), key)[1] for key in keys}
    assert len({tuple(soft.flatten().tolist()) for soft in drawn.values()}) == len(keys)
    for key in reversed(keys):
        assert torch.equal(mix(*batch(), key)[1], drawn[key])


def test_both_are_drawn_evenly() -> None:
    mix, (images, labels) = BatchMix(1.0, 1.0, NUM_CLASSES), batch()
    pasted = 0
    for step in range(400):
        mixed, _ = mix(images, labels, (0, 0, step, 0))
        pasted += bool(((mixed == images) | (mixed == images.roll(1, 0))).all())
    assert 150 < pasted < 250


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0)])
def test_one_image_is_mixed_with_itself(mixup: float, cutmix: float) -> None:
    images, labels = batch(1)
    mixed, soft = BatchMix(mixup, cutmix, NUM_CLASSES)(images, labels, (0, 0, 0, 0))
    torch.testing.assert_close(mixed, images)
    torch.testing.assert_close(soft, torch.nn.functional.one_hot(labels, NUM_CLASSES).float())


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.0, 0.0), (-1.0, 0.0), (0.2, float("nan"))])
def test_what_is_not_possible_is_named(mixup: float, cutmix: float) -> None:
    with pytest.raises(ValueError, match=r"mixup_alpha|cutmix_alpha") as caught:
        BatchMix(mixup, cutmix, NUM_CLASSES)
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_same() -> None:
    mix, (images, labels) = BatchMix(0.2, 1.0, NUM_CLASSES), batch()
    for step in range(5):
        on_cpu = mix(images, labels, (0, 0, step, 0))
        on_gpu = mix(images.cuda(), labels.cuda(), (0, 0, step, 0))
        for one, other in zip(on_cpu, on_gpu, strict=True):
            torch.testing.assert_close(one, other.cpu())
