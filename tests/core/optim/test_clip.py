"""Clipping counts live weights alone, as torch's clips a vector of them."""

import math

import pytest
import torch
from torch import nn

import inq_ray


def make(portion: float) -> tuple[list[nn.Parameter], inq_ray.SGD]:
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((6, 5), (4, 3))]
    optimizer = inq_ray.SGD(params, weight_bits=4)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator)
        optimizer.freeze(param, torch.rand(param.shape, generator=generator) < portion)
    return params, optimizer


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("portion", [0.0, 0.5, 0.875])
def test_it_is_torchs_on_the_gradients_of_live_weights(portion: float, norm_type: float) -> None:
    params, optimizer = make(portion)
    live = [~optimizer.frozen(param) for param in params]
    alone = [nn.Parameter(param.detach()[mask]) for param, mask in zip(params, live, strict=True)]
    for param, mask, each in zip(params, live, alone, strict=True):
        assert param.grad is not None
        each.grad = param.grad[mask]
    expected = nn.utils.clip_grad_norm_(alone, 0.1, norm_type)
    torch.testing.assert_close(inq_ray.clip_grad_norm_(optimizer, 0.1, norm_type), expected)
    for param, mask, each in zip(params, live, alone, strict=True):
        assert param.grad is not None
        torch.testing.assert_close(param.grad[mask], each.grad)


def test_with_nothing_frozen_it_has_torchs_bits() -> None:
    (params, optimizer), (others, _) = make(0.0), make(0.0)
    assert torch.equal(inq_ray.clip_grad_norm_(optimizer, 1.0), nn.utils.clip_grad_norm_(others, 1.0))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(params, others, strict=True))  # type: ignore[arg-type]


def test_gradients_of_frozen_weights_change_nothing() -> None:
    params, optimizer = make(0.5)
    before = inq_ray.clip_grad_norm_(optimizer, 1e9)
    assert params[0].grad is not None
    params[0].grad[optimizer.frozen(params[0])] = math.inf
    assert torch.equal(inq_ray.clip_grad_norm_(optimizer, 1e9, error_if_nonfinite=True), before)


def test_what_is_not_allowed() -> None:
    params, optimizer = make(0.0)
    with pytest.raises(ValueError, match="above 0, got 0"):
        inq_ray.clip_grad_norm_(optimizer, 0)
    with pytest.raises(ValueError, match=r"must be an inq_ray\.SGD"):
        inq_ray.clip_grad_norm_(params, 1.0)  # type: ignore[arg-type]
