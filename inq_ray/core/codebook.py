"""Levels of weights, {0, ±2^n_2, …, ±2^n_1}, and rounding to them by bit patterns."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

MIN_BITS = 2
MAX_BITS = 8

Rule = Literal["max", "mse"]
RULES: tuple[Rule, ...] = ("max", "mse")
Levels = Literal["paper", "full"]
LEVELS: tuple[Levels, ...] = ("paper", "full")

# Most counters at once in a search for the least squared error: 64 MB.
_MOST_COUNTERS = 1 << 22
# Codes decoded at a time.
_PIECE = 1 << 20

# Levels are normal float32 numbers for any dtype of the weights, so codes mean the same weights everywhere.
MIN_EXPONENT = -126
MAX_EXPONENT = 127


class _FloatFormat(NamedTuple):
    """Positions of sign, exponent and mantissa in the bits of a floating-point type."""

    bits_dtype: torch.dtype
    num_mantissa_bits: int
    num_exponent_bits: int

    @property
    def exponent_bias(self) -> int:
        return (1 << (self.num_exponent_bits - 1)) - 1

    @property
    def magnitude_mask(self) -> int:
        return (1 << (self.num_mantissa_bits + self.num_exponent_bits)) - 1


_FORMATS = {
    torch.float32: _FloatFormat(torch.int32, num_mantissa_bits=23, num_exponent_bits=8),
    torch.float64: _FloatFormat(torch.int64, num_mantissa_bits=52, num_exponent_bits=11),
    torch.bfloat16: _FloatFormat(torch.int16, num_mantissa_bits=7, num_exponent_bits=8),
}


def float_format(dtype: torch.dtype) -> _FloatFormat:
    """Return the layout of ``dtype``.

    Raises:
        ValueError: ``dtype`` is not float32, float64 or bfloat16.
    """
    if dtype not in _FORMATS:
        raise ValueError(
            f"weights of {dtype} cannot be quantized: convert them to float32, float64 or bfloat16 "
            "before the optimizer is created, such as by model.float(), and train under torch.autocast"
        )
    return _FORMATS[dtype]


def check_num_bits(num_bits: int, what: str = "weight bits") -> None:
    """Raise ValueError, with ``what`` as the name, unless ``num_bits`` is a whole number from 2 to 8."""
    if type(num_bits) is not int or not MIN_BITS <= num_bits <= MAX_BITS:
        raise ValueError(f"{what} must be a whole number from {MIN_BITS} to {MAX_BITS}, got {num_bits!r}")


def check_rule(rule: str) -> None:
    """Raise ValueError unless ``rule`` is one of RULES."""
    if rule not in RULES:
        raise ValueError(f"codebook must be one of {', '.join(RULES)}, got {rule!r}")


def check_levels(levels: str) -> None:
    """Raise ValueError unless ``levels`` is one of LEVELS."""
    if levels not in LEVELS:
        raise ValueError(f"levels must be one of {', '.join(LEVELS)}, got {levels!r}")


def num_exponents(num_bits: int, levels: Levels) -> int:
    """Return the number of powers of two: the paper's 2^(num_bits-2), or all 2^(num_bits-1) - 1 that have codes."""
    return 1 << (num_bits - 2) if levels == "paper" else (1 << (num_bits - 1)) - 1


def magnitudes(weight: Tensor) -> Tensor:
    """Return order-preserving non-negative integers of ``|weight|``: its bit pattern without the sign.

    Args:
        weight: float [*].

    Returns:
        int16, int32 or int64 [*], as wide as the weight; larger means larger in magnitude.
    """
    layout = float_format(weight.dtype)
    return weight.detach().view(layout.bits_dtype) & layout.magnitude_mask


def max_magnitude(weight: Tensor) -> float:
    """Return max|W|, or 0 for a tensor without elements.

    Raises:
        ValueError: A weight is NaN or infinite, or the dtype cannot be quantized.
    """
    if weight.numel() == 0:
        return 0.0
    float_format(weight.dtype)
    smallest, largest = torch.aminmax(weight.detach())  # both are NaN if any weight is
    max_abs = max(-float(smallest), float(largest))
    if not math.isfinite(max_abs):
        raise ValueError("weights are NaN or infinite: return to finite ones, and lower the learning rate")
    return max_abs


@dataclass(frozen=True)
class Codebook:
    """Levels of one weight tensor (Zhou et al., ICLR 2017, arXiv 1702.03044, section 2.1).

    P = {0, ±2^n_2, …, ±2^n_1} has 2^(num_bits-2) exponents and 2^(num_bits-1) + 1 levels, so some codes are unused;
    with ``levels`` "full" it has all 2^(num_bits-1) - 1 exponents that have a code. The code of a level is a uint8
    below 2^num_bits: 0 for 0, else ``negative << (num_bits - 1) | (k - n_2 + 1)`` for ±2^k.

    Magnitudes below 2^-126, subnormal in float32, count as 0 in every dtype, and n_1 is at most 127: so levels are
    exact in float32, float64 and bfloat16, and are not flushed to 0 on hardware that does so with subnormal numbers.

    Attributes:
        num_bits: Bits b per weight, 2 to 8; one of them is for zero.
        n_1: Largest exponent; None for an all-zero tensor, whose only level is 0.
        levels: "paper" or "full".
    """

    num_bits: int
    n_1: int | None
    levels: Levels = "paper"

    def __post_init__(self) -> None:
        check_num_bits(self.num_bits)
        check_levels(self.levels)
        if self.n_1 is not None and not (type(self.n_1) is int and MIN_EXPONENT <= self.n_1 <= MAX_EXPONENT):
            raise ValueError(
                f"n_1 must be None or a whole number from {MIN_EXPONENT} to {MAX_EXPONENT}, got {self.n_1!r}"
            )

    @classmethod
    def for_max(cls, max_abs: float, num_bits: int, levels: Levels = "paper") -> "Codebook":
        """Return the codebook with the paper's n_1 = floor(log2(4 s / 3)) for s = ``max_abs`` (section 2.1), exactly.

        With s = m 2^e and m in [1/2, 1), 4 s / 3 is at least 2^e exactly if m >= 3/4.

        Raises:
            ValueError: ``max_abs`` is beyond the range of float32.
        """
        if not max_abs <= torch.finfo(torch.float32).max:  # also true for NaN
            raise ValueError(f"weights of magnitude {max_abs:g} are beyond the range of float32")
        if max_abs < 2.0**MIN_EXPONENT:
            return cls(num_bits, None, levels)
        mantissa, exponent = math.frexp(max_abs)
        n_1 = exponent if mantissa >= 0.75 else exponent - 1
        return cls(num_bits, min(n_1, MAX_EXPONENT), levels)

    @classmethod
    def for_weight(cls, weight: Tensor, num_bits: int, rule: Rule = "max", levels: Levels = "paper") -> "Codebook":
        """Return the codebook of ``weight``.

        Args:
            weight: float [*].
            num_bits: Bits per weight.
            rule: "max" uses the paper's n_1, so that nothing saturates; "mse" the n_1 with the least squared error over
                the tensor, the largest of equal ones. At 2 bits everything below half of the only power becomes 0,
                which with "max" is nearly all of a bell-shaped tensor.
            levels: "paper" or "full".

        Raises:
            ValueError: A weight is NaN, infinite or beyond the range of float32, its dtype cannot be quantized, or the
                rule is unknown.
        """
        check_rule(rule)
        largest = cls.for_max(max_magnitude(weight), num_bits, levels)
        return largest if rule == "max" else of_least_error(weight.reshape(1, -1), [largest])[0]

    @property
    def num_exponents(self) -> int:
        """Number of powers of two."""
        return num_exponents(self.num_bits, self.levels)

    @property
    def n_2(self) -> int | None:
        """Smallest exponent, n_1 + 1 - num_exponents; None if n_1 is None."""
        return None if self.n_1 is None else self.n_1 + 1 - self.num_exponents

    def values(self) -> list[float]:
        """Return the levels in ascending order."""
        if self.n_1 is None or self.n_2 is None:
            return [0.0]
        powers = [math.ldexp(1.0, k) for k in range(self.n_2, self.n_1 + 1)]
        return [*(-power for power in reversed(powers)), 0.0, *powers]

    def encode(self, weight: Tensor) -> Tensor:
        """Return the codes of the levels to which ``weight`` is rounded by equation 4.

        |w| in [1.5 2^(k-1), 1.5 2^k) becomes 2^k, |w| < 2^(n_2-1) becomes 0, and values above 1.5 2^n_1 saturate at
        2^n_1. Sign, exponent and the first bit of the mantissa determine the result, so one table look-up suffices.

        Args:
            weight: float32, float64 or bfloat16 [*], finite.

        Returns:
            uint8 [*].
        """
        layout = float_format(weight.dtype)
        table = _encoding_table(self, weight.dtype).to(weight.device)
        flat = weight.detach().reshape(-1).view(layout.bits_dtype)
        # An arithmetic shift leaves copies of the sign above the index, which are masked off.
        index = (flat >> (layout.num_mantissa_bits - 1)).bitwise_and_(len(table) - 1)
        if index.dtype == torch.int16:
            index = index.int()
        return table.index_select(0, index).view(weight.shape)

    def decode(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weights of ``codes``.

        Args:
            codes: uint8 [*], from :meth:`encode` of an equal codebook.
            dtype: Dtype of the result.

        Returns:
            ``dtype`` [*]; zeros are +0.0.
        """
        table = _decoding_table(self).to(codes.device, dtype)
        weight = torch.empty(codes.shape, dtype=dtype, device=codes.device)
        # In pieces: as integers of 32 bits all codes together would need as much memory as the weights.
        parts = (torch.split(flat, _PIECE) for flat in (codes.reshape(-1), weight.view(-1)))
        for piece, values in zip(*parts, strict=True):
            torch.index_select(table, 0, piece.int(), out=values)
        return weight

    def quantize(self, weight: Tensor) -> Tensor:
        """Return ``weight`` rounded to the levels; float [*] with the same shape and dtype."""
        return self.decode(self.encode(weight), weight.dtype)

    def used(self, codes: Tensor) -> list[tuple[int, float]]:
        """Return the codes that occur in ``codes`` (uint8 [*]), ascending, with their levels; NaN for unused codes."""
        used = torch.bincount(codes.reshape(-1), minlength=256).nonzero().reshape(-1)
        levels: list[float] = _decoding_table(self).index_select(0, used.cpu()).tolist()
        return list(zip(used.tolist(), levels, strict=True))

    def strange_code(self, codes: Tensor) -> int | None:
        """Return a code of ``codes`` (uint8 [*]) that is not a level, None if all are."""
        return next((code for code, level in self.used(codes) if math.isnan(level)), None)


def of_least_error(rows: Tensor, largest: Sequence[Codebook]) -> list[Codebook]:
    """Return for each row the codebook with the least squared error, from the largest n_1 downwards.

    With the level q of a weight w, sum (|w| - q)^2 = sum |w|^2 - 2 sum |w| q + sum q^2. Weights with the same exponent
    and first mantissa bit have the same level in any codebook, so only their number and sum are needed, and one pass
    over the tensor serves all codebooks. Computed on the CPU, where the order of summation is fixed.

    Args:
        rows: float [r, n].
        largest: [r], equal except for their n_1; None for a row of zeros.
    """
    num_halves = 1 << (float_format(rows.dtype).num_exponent_bits + 1)
    step = _MOST_COUNTERS // num_halves
    parts = range(0, len(rows), step)
    return [each for at in parts for each in _least_of(rows[at : at + step], largest[at : at + step], num_halves)]


def _least_of(rows: Tensor, largest: Sequence[Codebook], num_halves: int) -> list[Codebook]:
    """Return the result of :func:`of_least_error` for few enough rows that their counters fit into memory."""
    tops = torch.tensor([MIN_EXPONENT - 1 if each.n_1 is None else each.n_1 for each in largest], device="cpu")
    layout = float_format(rows.dtype)
    halves = (magnitudes(rows.contiguous()) >> (layout.num_mantissa_bits - 1)).to("cpu", torch.int64)
    bins = (halves + torch.arange(len(rows), device="cpu").view(-1, 1) * num_halves).reshape(-1)
    size, values = len(rows) * num_halves, rows.detach().reshape(-1).to("cpu", torch.float64).abs()
    counts = torch.bincount(bins, minlength=size).double().view(-1, num_halves)
    sums = torch.bincount(bins, values, minlength=size).view(-1, num_halves)
    occurring = counts[:, 2:].any(dim=0).nonzero()
    if not len(occurring):
        return list(largest)
    smallest = max(MIN_EXPONENT, (int(occurring[0]) + 2) // 2 - layout.exponent_bias)
    best, least = tops.clone(), torch.full((len(rows),), math.inf, dtype=torch.float64, device="cpu")
    for n_1 in range(int(tops.max()), smallest - 1, -1):
        codebook = dataclasses.replace(largest[0], n_1=n_1)
        levels = codebook.decode(_encoding_table(codebook, rows.dtype)[:num_halves], torch.float64)
        error = (levels * (levels * counts - 2 * sums)).sum(dim=1)
        better = (error < least) & (n_1 <= tops)
        best[better], least[better] = n_1, error[better]
    return [
        each if each.n_1 is None else dataclasses.replace(each, n_1=int(n_1))
        for each, n_1 in zip(largest, best, strict=True)
    ]


@cache
def _encoding_table(codebook: Codebook, dtype: torch.dtype) -> Tensor:
    """Return uint8 [2^(exponent bits + 2)]: the code by sign, exponent and first mantissa bit of a weight."""
    layout = float_format(dtype)
    half = torch.arange(1 << (layout.num_exponent_bits + 2), device="cpu")
    negative = half >> (layout.num_exponent_bits + 1)
    biased = (half >> 1) & ((1 << layout.num_exponent_bits) - 1)
    if codebook.n_1 is None or codebook.n_2 is None:
        return torch.zeros_like(half, dtype=torch.uint8)
    exponent = biased - layout.exponent_bias  # floor(log2|w|)
    rounded = exponent + (half & 1)  # 1.5 2^k and above go up
    index = (rounded - codebook.n_2 + 1).clamp(1, codebook.num_exponents)
    code = (negative << (codebook.num_bits - 1)) | index
    return code.masked_fill(exponent < max(codebook.n_2 - 1, MIN_EXPONENT), 0).to(torch.uint8)


@cache
def _decoding_table(codebook: Codebook) -> Tensor:
    """Return float64 [256]: the level by code; NaN for unused codes, so that a wrong code cannot pass for a weight."""
    table = torch.full((256,), math.nan, dtype=torch.float64, device="cpu")
    table[0] = 0.0
    if codebook.n_1 is not None and codebook.n_2 is not None:
        for index in range(codebook.num_exponents):
            level = math.ldexp(1.0, codebook.n_2 + index)
            table[index + 1] = level
            table[(1 << (codebook.num_bits - 1)) | (index + 1)] = -level
    return table
