"""Random crops: torchvision's own computation given the same random numbers, and their distribution against its."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torchvision.transforms import v2
from torchvision.transforms.v2 import _geometry

from inq_ray.data.augment.random_resized_crop import draw_crop
from inq_ray.data.decode.picture import Box
from inq_ray.data.preprocessing import Augmentation
from inq_ray.data.seeded import counter_hash


class Number(float):
    """A number that torchvision takes for a tensor of one number."""

    def item(self) -> float:
        return float(self)


class FixedNumbers:
    """Stands in for torch where torchvision draws: the numbers are those that our crop of a sample has."""

    def __init__(self, sample: int, seed: int, epoch: int) -> None:
        bits = counter_hash("random_crop", seed, epoch, sample * 32 + np.arange(23))
        self._uniform = [(int(word) >> 11) / 2**53 for word in bits]
        self._sizes = iter(self._uniform[:20])
        self._places = iter(self._uniform[20:22])

    def empty(self, _: int) -> Any:
        return SimpleNamespace(uniform_=lambda low, high: Number(low + (high - low) * next(self._sizes)))

    def exp(self, value: float) -> Number:
        return Number(math.exp(value))

    def randint(self, low: int, high: int, size: tuple[int]) -> Any:
        assert size == (1,)
        return SimpleNamespace(item=lambda: low + int(next(self._places) * (high - low)))


def by_torchvision(height: int, width: int, augmentation: Augmentation, sample: int, seed: int, epoch: int) -> Box:
    transform = v2.RandomResizedCrop(224, scale=augmentation.scale, ratio=augmentation.ratio)
    transform._log_ratio = tuple(map(math.log, augmentation.ratio))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_geometry, "torch", FixedNumbers(sample, seed, epoch))
        patch.setattr(_geometry, "query_size", lambda _: (height, width))
        return Box(**transform.make_params([]))


@given(
    height=st.integers(1, 700) | st.just(2),
    width=st.integers(1, 700) | st.just(2),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    ratio=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
    sample=st.integers(0, 2**31),
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 1000),
)
def test_it_is_torchvisions_computation(
    height: int, width: int, scale: Any, ratio: Any, sample: int, seed: int, epoch: int
) -> None:
    augmentation = Augmentation(scale=tuple(sorted(scale)), ratio=tuple(sorted(ratio)))
    box, _ = draw_crop(height, width, augmentation, sample, seed, epoch)
    expected = by_torchvision(height, width, augmentation, sample, seed, epoch)
    assert 0 <= box.top <= box.top + box.height <= height
    assert 0 <= box.left <= box.left + box.width <= width
    assert box.height > 0
    assert box.width > 0
    assume(min(expected.height, expected.width) > 0)  # torchvision cuts nothing at all out of very long images
    assert box == expected


def test_long_images_are_cut_in_the_middle() -> None:
    assert draw_crop(10, 900, Augmentation(), 0, 0, 0)[0] == Box(0, 443, 10, 13)
    assert draw_crop(900, 10, Augmentation(), 0, 0, 0)[0] == Box(443, 0, 13, 10)
    assert draw_crop(1, 1, Augmentation(), 0, 0, 0)[0] == Box(0, 0, 1, 1)
    assert draw_crop(1, 900, Augmentation(ratio=(0.1, 0.2)), 0, 0, 0)[0] == Box(0, 449, 1, 1)


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (120, 90)])
def test_crops_are_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    num = 3000
    ours = np.array([draw_crop(*size, Augmentation(), sample, 7, 3)[0] for sample in range(num)])
    transform = v2.RandomResizedCrop(224)
    image = torch.empty(3, *size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = np.array([Box(**transform.make_params([image])) for _ in range(num)])
    for measure in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 3] / box[:, 2],
        lambda box: box[:, 0] / (size[0] - box[:, 2] + 1),
        lambda box: box[:, 1] / (size[1] - box[:, 3] + 1),
        lambda box: box[:, 0] * box[:, 3],
    ):
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 0.001


def test_flips_and_epochs() -> None:
    draws = {
        epoch: [draw_crop(300, 400, Augmentation(), sample, 0, epoch) for sample in range(2000)] for epoch in (0, 1)
    }
    for drawn in draws.values():
        assert abs(sum(mirrored for _, mirrored in drawn) - 1000) < 4 * math.sqrt(2000) / 2
        assert len({box for box, _ in drawn}) > 1990
    assert sum(one == other for one, other in zip(draws[0], draws[1], strict=True)) < 5
    unmirrored = [draw_crop(300, 400, Augmentation(flip=False), sample, 0, 0) for sample in range(2000)]
    assert unmirrored == [(box, False) for box, _ in draws[0]]


def test_flip_is_a_choice_and_gray_images_are_left_as_they_are() -> None:
    def share(channels: int, flip: bool | None) -> float:
        augmentation = Augmentation(flip=flip)
        return sum(draw_crop(8, 8, augmentation, sample, 0, 0, channels=channels)[1] for sample in range(200)) / 200

    assert share(3, None) == share(3, True) == share(1, True)
    assert 0.35 < share(3, None) < 0.65
    assert share(3, False) == share(1, None) == 0
