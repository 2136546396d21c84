"""Codebooks whose n_1 differs between the channels of a tensor, and what tells them from those of one n_1."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from inq_ray.core.codebook import Codebook, Levels, Rule, max_magnitude, of_least_error

Per = Literal["tensor", "channel"]
PERS: tuple[Per, ...] = ("tensor", "channel")


def check_per(per: str) -> None:
    """Raise ValueError unless ``per`` is one of PERS."""
    if per not in PERS:
        raise ValueError(f"codebook_per must be one of {', '.join(PERS)}, got {per!r}")


@dataclass(frozen=True)
class ChannelCodebook:
    """A codebook for each channel: for each index of a tensor's first dimension.

    That is an output of a linear layer, an attention's in-projection or a convolution, an input of a transposed one.
    Methods are those of :class:`Codebook`. They raise ValueError for a tensor of another number of channels.

    Attributes:
        channels: by index, of the same bits and levels; at least one.
    """

    channels: tuple[Codebook, ...]

    @property
    def num_bits(self) -> int:
        """Width of a weight."""
        return self.channels[0].num_bits

    @property
    def levels(self) -> Levels:
        """Which levels there are: "paper" or "full"."""
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
        """Return the levels of all channels, rising."""
        return sorted({value for each in self.channels for value in each.values()})

    def encode(self, weight: Tensor) -> Tensor:
        """Codes of a weight (float [channels, *]) as uint8, see :meth:`Codebook.encode`."""
        codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
        for codebook, rows in self._parts(weight):
            codes[rows] = codebook.encode(weight.detach()[rows])
        return codes

    def decode(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Weights of codes (uint8 [channels, *]), see :meth:`Codebook.decode`."""
        weight = torch.empty(codes.shape, dtype=dtype, device=codes.device)
        for codebook, rows in self._parts(codes):
            weight[rows] = codebook.decode(codes[rows], dtype)
        return weight

    def quantize(self, weight: Tensor) -> Tensor:
        """``weight`` rounded to the levels; float [channels, *] in, the same out."""
        return self.decode(self.encode(weight), weight.dtype)

    def used(self, codes: Tensor) -> list[tuple[int, float]]:
        """Codes that occur in codes (uint8 [channels, *]) and their levels, see :meth:`Codebook.used`."""
        return sorted({pair for codebook, rows in self._parts(codes) for pair in codebook.used(codes[rows])})

    def strange_code(self, codes: Tensor) -> int | None:
        """Return a code of codes (uint8 [channels, *]) that stands for no level, None where all stand for one."""
        parts = (codebook.strange_code(codes[rows]) for codebook, rows in self._parts(codes))
        return next((code for code in parts if code is not None), None)

    def _parts(self, tensor: Tensor) -> Iterator[tuple[Codebook, Tensor]]:
        """Yield each codebook that channels share, and their indices (int64)."""
        num_channels = len(tensor) if tensor.dim() else 0
        if num_channels != len(self.channels):
            raise ValueError(f"the codebook is of {len(self.channels)} channels, the tensor has {num_channels}")
        rows: dict[Codebook, list[int]] = {}
        for index, codebook in enumerate(self.channels):
            rows.setdefault(codebook, []).append(index)
        for codebook, indices in rows.items():
            yield codebook, torch.tensor(indices, device=tensor.device)


AnyCodebook = Codebook | ChannelCodebook


def codebook_of(num_bits: int, n_1: int | Sequence[int | None] | None, levels: Levels = "paper") -> AnyCodebook:
    """Return the codebook that has these attributes; with several n_1 it is a ChannelCodebook.

    Raises:
        ValueError: there is no such codebook.
    """
    if not isinstance(n_1, list | tuple):
        return Codebook(num_bits, n_1, levels)  # which refuses what is no number
    if not n_1:
        raise ValueError("n_1 must be None, a whole number, or a list with one of these for each channel, got []")
    return ChannelCodebook(tuple(Codebook(num_bits, each, levels) for each in n_1))


def undecided(weight: Tensor, num_bits: int, levels: Levels = "paper", per: Per = "tensor") -> AnyCodebook:
    """Return the codebook of a tensor (float [*]) before its n_1 is known; channels need two dimensions."""
    check_per(per)
    has_channels = per == "channel" and weight.dim() > 1 and len(weight) > 0
    return codebook_of(num_bits, [None] * len(weight) if has_channels else None, levels)


def decided(codebook: AnyCodebook, weight: Tensor, rule: Rule = "max") -> AnyCodebook:
    """Return the codebook with each n_1 that is None as it follows from ``weight``, by a rule of :class:`Codebook`.

    Args:
        codebook: n_1 that are known stay.
        weight: float [*], checked even where all n_1 are known.
        rule: see :meth:`Codebook.for_weight`.

    Raises:
        ValueError: as :meth:`Codebook.for_weight`.
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
