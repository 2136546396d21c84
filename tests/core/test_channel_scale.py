"""Scales of channels: one power that is right for all of them, and no rule's error that they make larger."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inq_ray.core.channel_scale import channel_scales
from inq_ray.core.codebook import Codebook, Rule
from tests.core.weights import weights

RULES: list[Rule] = ["mse", "weighted"]


def error_of_channels(weight: Tensor, codebook: Codebook, rule: Rule) -> Tensor:
    """Of each channel, as a share of what its weights come to, so that the channel's scale plays no part."""
    rows = weight.reshape(len(weight), -1).double()
    power = 1 if rule == "weighted" else 0
    errors = (codebook.quantize(rows) - rows).square() * rows.abs() ** power
    return errors.sum(1) / (rows.abs() ** (2 + power)).sum(1).clamp(min=1e-300)


def scaled(weight: Tensor, scales: Tensor) -> Tensor:
    return weight.double() * scales.view(-1, *[1] * (weight.dim() - 1))


def channels(seed: int, num: int, size: int, spread: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    sizes = 2 ** (torch.randn(num, 1, generator=generator) * spread)
    return torch.randn(num, size, generator=generator) * sizes


@pytest.mark.parametrize("rule", RULES)
@given(
    seed=st.integers(0, 10**6),
    num=st.integers(1, 6),
    size=st.integers(4, 60),
    spread=st.floats(0, 3),
    num_bits=st.integers(2, 6),
)
def test_the_rule_finds_one_power_in_the_scaled_tensor_that_is_best_for_each_channel(
    rule: Rule, seed: int, num: int, size: int, spread: float, num_bits: int
) -> None:
    weight = channels(seed, num, size, spread)
    result = scaled(weight, channel_scales(weight, num_bits, rule))
    codebook = Codebook.for_weight(result, num_bits, rule)
    assert codebook.n_1 is not None
    mine = error_of_channels(result, codebook, rule)
    for n_1 in range(codebook.n_1 - 4, codebook.n_1 + 3):
        assert bool((mine <= error_of_channels(result, Codebook(num_bits, n_1), rule) + 1e-9).all())
    before = error_of_channels(weight.double(), Codebook.for_weight(weight, num_bits, rule), rule)
    assert bool((mine <= before * 1.15 + 0.01).all())  # no unit between the sixteenths of an octave is tried


@pytest.mark.parametrize("rule", RULES)
@given(weight=weights(), num_bits=st.integers(2, 8))
def test_scales_are_finite_and_above_zero_whatever_the_weights(rule: Rule, weight: Tensor, num_bits: int) -> None:
    scales = channel_scales(weight, num_bits, rule)
    assert scales.shape == (len(weight),)
    assert scales.dtype == torch.float64
    assert bool((scales > 0).all())
    assert bool(scales.isfinite().all())
    is_zero = weight.reshape(len(weight), -1).double().abs().amax(1) == 0
    assert bool((scales[is_zero] == 1).all())


@pytest.mark.parametrize("rule", RULES)
def test_a_channel_s_size_does_not_matter_and_the_tensor_s_stays_as_it_is(rule: Rule) -> None:
    weight = channels(0, 8, 200, 0.0)
    factors = 2 ** torch.linspace(-2, 2, 8).double()
    once, again = channel_scales(weight, 3, rule), channel_scales(weight.double() * factors[:, None], 3, rule)
    torch.testing.assert_close(scaled(weight, once), scaled(weight.double() * factors[:, None], again))
    assert abs(float(once.log2().mean())) <= 0.5
    assert abs(float(again.log2().mean())) <= 0.5


def test_channels_of_different_sizes_lose_less_where_they_are_scaled() -> None:
    weight = channels(0, 64, 144, 1.0)
    for num_bits, bound in ((2, 0.8), (3, 0.6)):
        result = scaled(weight, channel_scales(weight, num_bits, "mse"))
        mean = float(error_of_channels(result, Codebook.for_weight(result, num_bits, "mse"), "mse").mean())
        before = float(error_of_channels(weight, Codebook.for_weight(weight, num_bits, "mse"), "mse").mean())
        assert mean < bound * before


def test_weights_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        channel_scales(torch.tensor([[1.0, float("nan")]]), 3, "mse")
