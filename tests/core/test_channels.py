"""Every channel of a ChannelCodebook is as a Codebook of its own; levels "full" by brute force."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inq_ray.core.channels import PERS, ChannelCodebook, Per, codebook_of, decided, rounding, undecided
from inq_ray.core.codebook import LEVELS, RULES, Codebook, Levels, Rule
from inq_ray.core.packing import pack_codes, unpack_codes
from tests.core.weights import bits, weights

ANY_LEVELS: st.SearchStrategy[Levels] = st.sampled_from(LEVELS)
ANY_RULE: st.SearchStrategy[Rule] = st.sampled_from(RULES)
ANY_PER: st.SearchStrategy[Per] = st.sampled_from(PERS)


def nearest(weight: float, codebook: Codebook) -> float:
    """Return the nearest level, of two the larger in magnitude; 0 below 2^-126."""
    if abs(weight) < 2.0**-126:
        return 0.0
    levels = [value for value in codebook.values() if value == 0 or abs(value) >= 2.0**-126]
    return min(levels, key=lambda value: (abs(Fraction(value) - Fraction(weight)), -abs(value)))


@given(weights(), st.integers(2, 8), ANY_LEVELS, ANY_RULE)
def test_weights_become_the_nearest_level(weight: Tensor, num_bits: int, levels: Levels, rule: Rule) -> None:
    codebook = Codebook.for_weight(weight, num_bits, rule, levels)
    codes = codebook.encode(weight)
    assert int(codes.max()) < 2**num_bits
    assert torch.equal(unpack_codes(pack_codes(codes, num_bits), num_bits, codes.numel()), codes.reshape(-1))
    quantized = codebook.decode(codes, weight.dtype)
    assert quantized.reshape(-1).tolist() == [nearest(value, codebook) for value in weight.reshape(-1).tolist()]
    assert torch.equal(codebook.encode(quantized), codes)


@pytest.mark.parametrize(("num_bits", "num_levels"), [(2, 3), (3, 7), (4, 15), (5, 31), (8, 255)])
def test_full_levels_use_all_codes_but_one(num_bits: int, num_levels: int) -> None:
    codebook = Codebook(num_bits, 3, "full")
    values = codebook.values()
    assert len(values) == num_levels == 2**num_bits - 1
    codes = codebook.encode(torch.tensor(values, dtype=torch.float64))
    assert sorted(codes.tolist()) == [code for code in range(2**num_bits) if code != 1 << (num_bits - 1)]


@given(weights(), st.integers(2, 8), ANY_LEVELS, ANY_RULE)
def test_each_channel_is_as_if_it_were_the_tensor(weight: Tensor, num_bits: int, levels: Levels, rule: Rule) -> None:
    codebook = decided(undecided(weight, num_bits, levels, "channel"), weight, rule)
    if weight.dim() == 1:
        assert codebook == Codebook.for_weight(weight, num_bits, rule, levels)
        return
    assert isinstance(codebook, ChannelCodebook)
    codes = codebook.encode(weight)
    assert codes.shape == weight.shape
    for row, row_codes, alone in zip(weight, codes, codebook.channels, strict=True):
        assert alone == Codebook.for_weight(row, num_bits, rule, levels)
        assert torch.equal(row_codes, alone.encode(row))
    for dtype in (weight.dtype, torch.float64):
        expected = torch.stack([each.decode(row, dtype) for row, each in zip(codes, codebook.channels, strict=True)])
        assert bits(codebook.decode(codes, dtype)) == bits(expected)
    assert codebook.strange_code(codes) is None
    assert {value for _, value in codebook.used(codes)} <= set(codebook.values())
    assert codebook_of(num_bits, list(codebook.n_1), levels) == codebook
    assert decided(codebook, weight / 2) == codebook, "what is decided stays"


def test_channels_of_zeros_wait_for_their_first_weight() -> None:
    weight = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
    first = decided(undecided(weight, 3, per="channel"), weight)
    assert first.n_1 == (0, None)
    assert decided(first, torch.tensor([[8.0, 0.5], [0.25, 0.0]])).n_1 == (0, -2)


def test_a_code_that_one_channel_lacks_is_strange_there_only() -> None:
    codebook = codebook_of(3, (0, None))
    assert codebook.strange_code(torch.tensor([[1, 0], [0, 0]], dtype=torch.uint8)) is None
    assert codebook.strange_code(torch.tensor([[1, 0], [0, 2]], dtype=torch.uint8)) == 2
    with pytest.raises(ValueError, match="has 2 channels, the tensor has 3"):
        codebook.strange_code(torch.zeros(3, 2, dtype=torch.uint8))


@pytest.mark.parametrize("n_1", [True, 0.5, "0", [], [0, 200], {"a": 1}, [[0]]])
def test_strange_exponents_are_refused(n_1: object) -> None:
    with pytest.raises(ValueError, match="n_1 must be"):
        codebook_of(5, n_1)  # type: ignore[arg-type]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="levels must be one of paper, full, got 'all'"):
        Codebook(5, 0, "all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="codebook_per must be one of tensor, channel, got 'row'"):
        undecided(torch.ones(2, 2), 5, "paper", "row")  # type: ignore[arg-type]


def test_the_memory_of_a_search_for_the_least_error_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(9, 40, generator=torch.Generator().manual_seed(0))
    whole = decided(undecided(weight, 2, per="channel"), weight, "mse")
    monkeypatch.setattr("inq_ray.core.codebook._MOST_COUNTERS", 1024)
    assert decided(undecided(weight, 2, per="channel"), weight, "mse") == whole


@given(weights(dtypes=(torch.float64,)), st.integers(2, 8), ANY_LEVELS, ANY_PER, st.sampled_from([1, 2, 3]))
def test_columns_are_rounded_as_tensors_are(
    weight: Tensor, num_bits: int, levels: Levels, per: Per, repeats: int
) -> None:
    weight = weight.reshape(len(weight), -1)
    codebook = decided(undecided(weight, num_bits, levels, per), weight)
    expected = codebook.quantize(weight * 1.3)
    for groups in (1, 2) if len(weight) % 2 == 0 else (1,):
        nearest = rounding(codebook, groups)
        for column, due in zip((weight * 1.3).T, expected.T, strict=True):
            grouped, due_grouped = (each.view(groups, -1).repeat(1, repeats) for each in (column, due))
            assert nearest(grouped).tolist() == due_grouped.tolist()
