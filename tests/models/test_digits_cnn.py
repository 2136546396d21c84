"""The digits' network pools as torch's adaptive pooling does, and differentiates in an order of its own."""

import pytest
import torch

from inq_ray.models.digits_cnn import MeanOfQuarters


@pytest.mark.parametrize("size", [(4, 4), (6, 10), (5, 8), (7, 3)], ids=str)
def test_quarters_are_averaged_as_by_adaptive_pooling(size: tuple[int, int]) -> None:
    images = torch.randn(3, 5, *size, requires_grad=True)
    ours, theirs = MeanOfQuarters()(images), torch.nn.functional.adaptive_avg_pool2d(images, 2)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    (of_ours,) = torch.autograd.grad((ours * weights).sum(), images)
    (of_theirs,) = torch.autograd.grad((theirs * weights).sum(), images)
    torch.testing.assert_close(of_ours, of_theirs)


def test_the_demo_keeps_its_bits() -> None:
    images = torch.randn(64, 64, 4, 4).to(memory_format=torch.channels_last)
    assert MeanOfQuarters()(images).equal(torch.nn.functional.adaptive_avg_pool2d(images, 2))
