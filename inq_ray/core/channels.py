"""Codebooks with one n_1 per channel of a tensor, and functions for both kinds of codebooks."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from inq_ray.core.codebook import (
    MAX_EXPONENT,
    MIN_EXPONENT,
    Codebook,
    Levels,
    Rule,
    max_magnitude,
    num_exponents,
    of_least_error,
)

Per = Literal["tensor", "channel"]
PERS: tuple[Per, ...] = ("tensor", "channel")


def check_per(per: str) -> None:
    """Raise ValueError unless ``per`` is one of PERS."""
    if per not in PERS:
        raise ValueError(f"codebook_per must be one of {', '.join(PERS)}, got {per!r}")


@dataclass(frozen=True)
class ChannelCodebook:
    """A codebook per channel: per index of a tensor's first dimension.

    This is an output of a linear layer, an attention's input projection or a convolution, and an input of a transposed
    one. Methods are those of :class:`Codebook`. They raise ValueError for a tensor with another number of channels.

    Attributes:
        channels: Codebooks by index, with the same bits and levels; at least one.
    """

    channels: tuple[Codebook, ...]

    @property
    def num_bits(self) -> int:
        """Bits per weight."""
        return self.channels[0].num_bits

    @property
    def levels(self) -> Levels:
        """Kind of levels: "paper" or "full"."""
        return self.channels[0].levels

    @property
    def n_1(self) -> tuple[int | None, ...]:
        """Largest exponent by channel, None for a channel of zeros."""
        return tuple(each.n_1 for each in self.channels)

    @property
    def n_2(self) -> tuple[int | None, ...]:
        """Smallest exponent by channel, None for a channel of zeros."""
        return tuple(each.n_2 for each in self.channels)

    def values(self) -> list[float]:
        """Return the levels of all channels in ascending order."""
        return sorted({value for each in self.channels for value in each.values()})

    def encode(self, weight: Tensor) -> Tensor:
        """Return the codes of a weight (float [channels, *]) as uint8, see :meth:`Codebook.encode`."""
        codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
        for codebook, rows in self._parts(weight):
            codes[rows] = codebook.encode(weight.detach()[rows])
        return codes

    def decode(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weights of codes (uint8 [channels, *]), see :meth:`Codebook.decode`."""
        weight = torch.empty(codes.shape, dtype=dtype, device=codes.device)
        for codebook, rows in self._parts(codes):
            weight[rows] = codebook.decode(codes[rows], dtype)
        return weight

    def quantize(self, weight: Tensor) -> Tensor:
        """Return ``weight`` rounded to the levels; float [channels, *] with the same shape and dtype."""
        return self.decode(self.encode(weight), weight.dtype)

    def used(self, codes: Tensor) -> list[tuple[int, float]]:
        """Return the codes that occur in codes (uint8 [channels, *]) with their levels, see :meth:`Codebook.used`."""
        return sorted({pair for codebook, rows in self._parts(codes) for pair in codebook.used(codes[rows])})

    def strange_code(self, codes: Tensor) -> int | None:
        """Return a code of codes (uint8 [channels, *]) that is not a level, None if all are."""
        parts = (codebook.strange_code(codes[rows]) for codebook, rows in self._parts(codes))
        return next((code for code in parts if code is not None), None)

    def _parts(self, tensor: Tensor) -> Iterator[tuple[Codebook, Tensor]]:
        """Yield each distinct codebook, and the indices (int64) of its channels."""
        num_channels = len(tensor) if tensor.dim() else 0
        if num_channels != len(self.channels):
            raise ValueError(f"the codebook has {len(self.channels)} channels, the tensor has {num_channels}")
        rows: dict[Codebook, list[int]] = {}
        for index, codebook in enumerate(self.channels):
            rows.setdefault(codebook, []).append(index)
        for codebook, indices in rows.items():
            yield codebook, torch.tensor(indices, device=tensor.device)


AnyCodebook = Codebook | ChannelCodebook


def rounding(codebook: AnyCodebook, groups: int = 1) -> Callable[[Tensor], Tensor]:
    """Return :meth:`Codebook.quantize` for columns: one weight of each channel at a time.

    Args:
        codebook: Codebook of a tensor whose channels are the rows of all groups, group by group.
        groups: Number of groups.

    Returns:
        A function that rounds each value of float64 [groups, k · rows], for any k repetitions of a group's rows.
    """
    exponents = codebook.n_1 if isinstance(codebook, ChannelCodebook) else (codebook.n_1,) * groups
    of_zeros = MAX_EXPONENT + 1000  # so large that every value is rounded to 0
    tops = torch.tensor([of_zeros if n_1 is None else n_1 for n_1 in exponents], dtype=torch.int32).view(groups, -1)
    bottoms = tops + 1 - num_exponents(codebook.num_bits, codebook.levels)
    limits: dict[int, list[Tensor]] = {}  # by number of repetitions

    def rounded(values: Tensor) -> Tensor:
        repeats = values.shape[-1] // tops.shape[-1]
        if repeats not in limits:
            limits[repeats] = [each.to(values.device).repeat(1, repeats) for each in (tops, bottoms)]
        n_1, n_2 = limits[repeats]
        mantissa, exponent = torch.frexp(values)  # of magnitude in [1/2, 1): floor(log2|w|) is one less
        k = exponent - 1 + (mantissa.abs() >= 0.75)
        is_zero = exponent < n_2.clamp_min(MIN_EXPONENT + 1)
        return torch.ldexp(values.sign(), k.maximum(n_2).minimum(n_1)).masked_fill(is_zero, 0.0)

    return rounded


def codebook_of(num_bits: int, n_1: int | Sequence[int | None] | None, levels: Levels = "paper") -> AnyCodebook:
    """Return the codebook with these attributes; with several n_1 it is a ChannelCodebook.

    Raises:
        ValueError: There is no such codebook.
    """
    if n_1 is None or not isinstance(n_1, Sequence):
        return Codebook(num_bits, n_1, levels)  # refuses anything but a number
    if not n_1:
        raise ValueError("n_1 must be None, a whole number, or a list with one of these per channel, got []")
    return ChannelCodebook(tuple(Codebook(num_bits, each, levels) for each in n_1))


def undecided(weight: Tensor, num_bits: int, levels: Levels = "paper", per: Per = "tensor") -> AnyCodebook:
    """Return the codebook of a tensor (float [*]) before its n_1 is known; channels need two dimensions."""
    check_per(per)
    has_channels = per == "channel" and weight.dim() > 1 and len(weight) > 0
    return codebook_of(num_bits, [None] * len(weight) if has_channels else None, levels)


def decided(codebook: AnyCodebook, weight: Tensor, rule: Rule = "max") -> AnyCodebook:
    """Return the codebook with each n_1 that is None computed from ``weight``, by a rule of :class:`Codebook`.

    Args:
        codebook: Codebook; known n_1 are kept.
        weight: float [*], checked even if all n_1 are known.
        rule: See :meth:`Codebook.for_weight`.

    Raises:
        ValueError: As in :meth:`Codebook.for_weight`.
    """
    if isinstance(codebook, Codebook):
        whole = Codebook.for_weight(weight, codebook.num_bits, rule if codebook.n_1 is None else "max", codebook.levels)
        return whole if codebook.n_1 is None else codebook
    largest = Codebook.for_max(max_magnitude(weight), codebook.num_bits)
    if largest.n_1 is None or None not in codebook.n_1:
        return codebook
    rows = weight.detach().reshape(len(codebook.channels), -1)
    maxima = rows.abs().amax(dim=1).tolist()
    found = [Codebook.for_max(value, codebook.num_bits, codebook.levels) for value in maxima]
    if rule == "mse":
        found = of_least_error(rows, found)
    pairs = zip(codebook.channels, found, strict=True)
    return dataclasses.replace(codebook, channels=tuple(new if old.n_1 is None else old for old, new in pairs))
