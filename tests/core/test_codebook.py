import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inq_ray.core.codebook import RULES, Codebook, Rule, max_magnitude
from tests.core.weights import DTYPES, bits, equation_4, weights

ALL_BITS = range(2, 9)


def with_neighbors(values: list[float], dtype: torch.dtype) -> Tensor:
    exact = torch.tensor(values, dtype=torch.float64).to(dtype)
    below, above = (torch.nextafter(exact, torch.tensor(end, dtype=dtype)) for end in (-math.inf, math.inf))
    return torch.cat([exact, below, above, -exact, -below, -above])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_bits", ALL_BITS)
@pytest.mark.parametrize("n_1", [-3, 127, -60, -126])
def test_encode_is_equation_4_at_the_cut_points_and_beside_them(dtype: torch.dtype, num_bits: int, n_1: int) -> None:
    codebook = Codebook(num_bits=num_bits, n_1=n_1)
    assert codebook.n_2 is not None
    exponents = range(max(codebook.n_2 - 3, -126), n_1 + 1)
    cuts = [factor * 2.0**k for k in exponents for factor in (1.0, 1.25, 1.5, 1.75)] + [0.0]
    cuts = [cut for cut in cuts if cut <= torch.finfo(dtype).max]
    weight = with_neighbors(cuts, dtype)
    weight = weight[weight.isfinite()]
    expected = [equation_4(value, codebook) for value in weight.tolist()]
    assert codebook.quantize(weight).tolist() == expected


@given(weights(), st.integers(2, 8))
def test_encode_is_equation_4_and_codes_mean_the_weights(weight: Tensor, num_bits: int) -> None:
    codebook = Codebook.for_weight(weight, num_bits)
    codes = codebook.encode(weight)
    assert codes.dtype == torch.uint8
    assert codes.shape == weight.shape
    assert int(codes.max()) < 2**num_bits
    quantized = codebook.decode(codes, weight.dtype)
    assert quantized.reshape(-1).tolist() == [equation_4(value, codebook) for value in weight.reshape(-1).tolist()]
    assert set(quantized.reshape(-1).tolist()) <= set(codebook.values())
    assert not bool((quantized == 0).logical_and_(quantized.signbit()).any()), "zero is +0.0"
    assert bits(codebook.quantize(quantized)) == bits(quantized), "levels stay"
    # What is stored as codes is the same weight in every dtype.
    for dtype in DTYPES:
        assert codebook.decode(codes, dtype).tolist() == quantized.tolist()


def test_at_most_one_half_of_the_levels_apart_and_what_grew_saturates() -> None:
    codebook = Codebook(num_bits=3, n_1=0)
    weight = torch.tensor([1.49, 1.5, 1.6, 100.0, 3e38, -1.6, -3e38])
    assert codebook.quantize(weight).tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0]


@pytest.mark.parametrize(("num_bits", "num_levels"), [(2, 3), (3, 5), (4, 9), (5, 17), (8, 129)])
def test_levels(num_bits: int, num_levels: int) -> None:
    codebook = Codebook(num_bits=num_bits, n_1=-1)
    levels = codebook.values()
    assert len(levels) == num_levels
    assert levels == sorted(levels)
    assert max(levels) == 0.5
    assert codebook.n_2 == -1 + 1 - 2 ** (num_bits - 1) // 2
    assert min(level for level in levels if level > 0) == 2.0**codebook.n_2


def n_1_by_integers(s: float) -> int:
    """floor(log2(4 s / 3)) without a logarithm."""
    ratio = Fraction(s) * 4 / 3
    n_1 = 0
    while Fraction(2) ** (n_1 + 1) <= ratio:
        n_1 += 1
    while Fraction(2) ** n_1 > ratio:
        n_1 -= 1
    return n_1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_n_1_at_three_quarters_of_each_power_of_two_and_beside_it(dtype: torch.dtype) -> None:
    for k in range(-120, 128):
        exact = torch.tensor(0.75 * 2.0**k, dtype=dtype)
        below, above = (torch.nextafter(exact, torch.tensor(end, dtype=dtype)) for end in (0.0, math.inf))
        assert [Codebook.for_weight(s.view(1), 5).n_1 for s in (below, exact, above)] == [k - 1, k, k]


@given(st.floats(2.0**-126, 2.0**127))
def test_n_1_is_the_floor_of_the_logarithm(s: float) -> None:
    assert Codebook.for_max(s, 5).n_1 == n_1_by_integers(s)


def test_n_1_stays_in_the_range_of_float32() -> None:
    weight = torch.tensor([torch.finfo(torch.float32).max, 1.5 * 2.0**127, -1.0])
    codebook = Codebook.for_weight(weight, 5)
    assert codebook.n_1 == 127  # by the formula 128, and 2^128 is infinite
    assert codebook.quantize(weight).tolist()[:2] == [2.0**127, 2.0**127]
    with pytest.raises(ValueError, match="beyond the range of float32"):
        Codebook.for_weight(torch.tensor([1e39], dtype=torch.float64), 5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("values", [[0.0, -0.0, 0.0], [], [2.0**-127, -(2.0**-126) * 0.99, 0.0]])
def test_tensors_of_zeros_and_subnormals_have_the_level_0_only(values: list[float], dtype: torch.dtype) -> None:
    weight = torch.tensor(values, dtype=dtype)
    codebook = Codebook.for_weight(weight, 4)
    assert (codebook.n_1, codebook.n_2, codebook.values()) == (None, None, [0.0])
    assert codebook.quantize(weight).tolist() == [0.0] * len(values)
    assert not codebook.quantize(weight).signbit().any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_magnitudes_below_the_smallest_normal_float32_count_as_zero(dtype: torch.dtype) -> None:
    """Also where the level 2^-126 would be nearer, and where the dtype could hold smaller levels."""
    codebook = Codebook(num_bits=8, n_1=-120)
    weight = torch.tensor([2.0**-126, 1.9 * 2.0**-127, 2.0**-130, -(2.0**-127)], dtype=torch.float64).to(dtype)
    assert codebook.quantize(weight).tolist() == [2.0**-126, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("place", [0, 500, 999])
def test_nan_and_infinity_are_errors(bad: float, dtype: torch.dtype, place: int) -> None:
    weight = torch.randn(1000).to(dtype)
    weight[place] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        Codebook.for_weight(weight, 5)


@given(weights())
def test_max_magnitude(weight: Tensor) -> None:
    assert max_magnitude(weight) == max(abs(value) for value in weight.reshape(-1).tolist())


@pytest.mark.parametrize("num_bits", [1, 0, 9, -3, 5.0, True, "5"])
def test_num_bits_is_checked(num_bits: object) -> None:
    with pytest.raises(ValueError, match="from 2 to 8"):
        Codebook(num_bits=num_bits, n_1=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_1", [128, -127, 0.5, "0"])
def test_n_1_is_checked(n_1: object) -> None:
    with pytest.raises(ValueError, match="n_1 must be None or a whole number from -126 to 127"):
        Codebook(num_bits=5, n_1=n_1)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.int32, torch.complex64])
def test_other_dtypes_are_errors_that_say_what_to_do(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="convert them to float32, float64 or bfloat16"):
        Codebook.for_weight(torch.ones(3, dtype=dtype), 5)


def test_a_code_without_a_level_is_no_weight() -> None:
    codebook = Codebook(num_bits=4, n_1=0)  # 4 powers of two: codes 1 to 4 and 9 to 12
    assert codebook.decode(torch.tensor([5, 8, 13, 200], dtype=torch.uint8)).isnan().all()


def test_memory_format_does_not_matter() -> None:
    weight = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    codebook = Codebook.for_weight(weight, 3)
    codes = codebook.encode(weight.to(memory_format=torch.channels_last))
    assert torch.equal(codes, codebook.encode(weight))
    assert codebook.encode(torch.tensor(0.7)).shape == ()


def squared_error(weight: Tensor, codebook: Codebook) -> float:
    return float(((codebook.quantize(weight).double() - weight.double()) ** 2).sum())


@given(weights(), st.integers(2, 8))
def test_the_rule_mse_is_of_least_squared_error(weight: Tensor, num_bits: int) -> None:
    largest, chosen = (Codebook.for_weight(weight, num_bits, rule) for rule in RULES)
    if largest.n_1 is None:
        assert chosen == largest
        return
    assert chosen.n_1 is not None
    assert chosen.n_1 <= largest.n_1
    candidates = [Codebook(num_bits, n_1) for n_1 in range(-126, min(largest.n_1 + 3, 128))]
    least = min(squared_error(weight, codebook) for codebook in candidates)
    rounding = 1e-12 * float((weight.double() ** 2).sum())
    assert squared_error(weight, chosen) <= least + rounding


def test_of_equal_errors_the_paper_s_stays() -> None:
    weight = torch.tensor([1.0, -1.0, 0.5])
    for num_bits in range(3, 9):  # with two powers and more nothing is lost
        assert Codebook.for_weight(weight, num_bits, "mse") == Codebook.for_weight(weight, num_bits)


@pytest.mark.parametrize(("rule", "num_zeros"), [("max", 0.9), ("mse", 0.5)])
def test_at_2_bits_the_largest_weight_leaves_zeros_and_least_error_does_not(rule: Rule, num_zeros: float) -> None:
    weight = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    zeros = float((Codebook.for_weight(weight, 2, rule).quantize(weight) == 0).float().mean())
    assert (zeros > num_zeros) if rule == "max" else (zeros < num_zeros)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="codebook must be one of max, mse, got 'best'"):
        Codebook.for_weight(torch.ones(3), 2, "best")  # type: ignore[arg-type]
