import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.wire import rank
from inq_ray.training.loop.clip import clip_live_gradients
from tests.core.weights import bits
from tests.ranks import run_ranks

SHAPES = [(7,), (5, 8), (4, 3, 3, 3), (1,), (2, 2)]


def make_params(seed: int, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """With gradients, but the last one."""
    generator = torch.Generator().manual_seed(seed)
    params = [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in SHAPES]
    for param in params[:-1]:
        param.grad = torch.randn(param.shape, generator=generator, dtype=torch.float64).to(dtype)
    return params


def gradients(params: list[nn.Parameter]) -> list[Tensor]:
    return [param.grad for param in params if param.grad is not None]


@settings(max_examples=40)
@given(st.integers(0, 5), st.sampled_from([1e-3, 0.5, 3.0, 1e3]), st.sampled_from([torch.float32, torch.float64]))
def test_with_nothing_frozen_it_is_torchs(seed: int, max_norm: float, dtype: torch.dtype) -> None:
    ours, theirs = make_params(seed, dtype), make_params(seed, dtype)
    norm = clip_live_gradients(SGD(ours), max_norm)
    assert bits(norm) == bits(clip_grad_norm_(theirs, max_norm))
    assert [bits(grad) for grad in gradients(ours)] == [bits(grad) for grad in gradients(theirs)]


@settings(max_examples=60)
@given(
    st.integers(0, 5),
    st.sampled_from([1e-3, 0.5, 3.0, 1e3]),
    st.lists(st.sampled_from([0.0, 0.3, 0.9, 1.0]), min_size=5, max_size=5),
    st.sampled_from([0.0, 1e30, math.inf, math.nan]),
)
def test_it_is_torchs_on_the_live_weights_alone(
    seed: int, max_norm: float, portions: list[float], of_frozen: float
) -> None:
    params = make_params(seed)
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)
    frozen = [
        torch.rand(param.shape, generator=generator) < portion for param, portion in zip(params, portions, strict=True)
    ]
    for param, mask in zip(params, frozen, strict=True):
        optimizer.freeze(param, mask)
        if param.grad is not None:
            param.grad[mask] = of_frozen
    live = torch.cat([param.grad[~mask] for param, mask in zip(params, frozen, strict=True) if param.grad is not None])
    sub_vector = nn.Parameter(torch.zeros_like(live))
    sub_vector.grad = live.clone()
    expected = clip_grad_norm_([sub_vector], max_norm)
    norm = clip_live_gradients(optimizer, max_norm)
    torch.testing.assert_close(norm, expected, rtol=1e-6, atol=0.0)
    clipped = torch.cat(
        [param.grad[~mask] for param, mask in zip(params, frozen, strict=True) if param.grad is not None]
    )
    torch.testing.assert_close(clipped, sub_vector.grad, rtol=1e-6, atol=0.0)
    before = [param.detach().clone() for param in params]
    optimizer.step()
    for param, mask, held in zip(params, frozen, before, strict=True):
        assert bits(param[mask]) == bits(held[mask])
        assert bool(param.isfinite().all())


def test_gradients_below_the_norm_keep_their_bits() -> None:
    params = make_params(0)
    before = [bits(grad) for grad in gradients(params)]
    clip_live_gradients(SGD(params), 1e6)
    assert [bits(grad) for grad in gradients(params)] == before


def test_without_gradients_the_norm_is_zero() -> None:
    params = make_params(0)
    optimizer = SGD(params)
    optimizer.zero_grad()
    assert clip_live_gradients(optimizer, 1.0).item() == 0.0


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_live_gradient_that_is_no_number_shows_in_the_norm(value: float) -> None:
    params = make_params(0)
    params[0].grad[0] = value  # type: ignore[index]
    assert not clip_live_gradients(SGD(params), 1.0).isfinite()


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan])
def test_a_norm_that_is_not_above_zero_is_refused(max_norm: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        clip_live_gradients(SGD(make_params(0)), max_norm)


def clip_on_ranks() -> tuple[list[int], list[int]]:
    """The norm of another machine, which sums in another order, is another in its last bits."""
    params = make_params(0)
    if rank() > 0:
        params[0].grad *= 1.25
    norm = clip_live_gradients(SGD(params), 1.0)
    return bits(norm), bits(params[1].grad)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_all_ranks_clip_by_the_same_norm(size: int) -> None:
    answers = run_ranks(clip_on_ranks, size)
    assert all(answer == answers[0] for answer in answers)
