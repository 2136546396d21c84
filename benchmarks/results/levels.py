"""Which levels the frozen weights of a tensor are at."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inq_ray.core.codebook import Codebook


class Levels(NamedTuple):
    """Numbers of weights by level.

    Attributes:
        num_zero: of weights 0.
        powers: (k, how many are -2^k, how many are +2^k), k rising; those alone that occur.
    """

    num_zero: int
    powers: tuple[tuple[int, int, int], ...]

    @classmethod
    def of_codes(cls, codebook: Codebook, codes: Tensor) -> "Levels":
        """Counts the levels of codes (uint8 [*])."""
        counts = torch.bincount(codes.reshape(-1).int(), minlength=256)
        by_level: dict[int, list[int]] = {}
        for code in range(1, 256):
            num = int(counts[code])
            if num:
                level = float(codebook.decode(torch.tensor([code], dtype=torch.uint8), torch.float64))
                k = math.frexp(level)[1] - 1
                by_level.setdefault(k, [0, 0])[level > 0] += num
        return cls(
            int(counts[0]), tuple((k, negative, positive) for k, (negative, positive) in sorted(by_level.items()))
        )

    @classmethod
    def read(cls, tensor: Mapping[str, Any]) -> "Levels":
        """Reads them from a tensor's part of a record."""
        return cls(tensor["num_zero"], tuple((k, negative, positive) for k, negative, positive in tensor["powers"]))

    @property
    def num_weights(self) -> int:
        """All of them."""
        return self.num_zero + sum(negative + positive for _, negative, positive in self.powers)

    @property
    def zeros(self) -> float:
        """Share of weights 0, in [0, 1]."""
        return self.num_zero / self.num_weights

    @property
    def entropy(self) -> float:
        """Bits a weight that no code of single weights can go below: -sum p log2 p over the levels."""
        counts = [self.num_zero, *(num for _, *signs in self.powers for num in signs)]
        return sum(-num / self.num_weights * math.log2(num / self.num_weights) for num in counts if num)

    @property
    def exponents(self) -> str:
        """The exponents that occur, as text."""
        if not self.powers:
            return "none"
        first, last = self.powers[0][0], self.powers[-1][0]
        if first == last:
            return f"{first}"
        rest = "" if last - first + 1 == len(self.powers) else f", {len(self.powers)} of them"
        return f"{first} to {last}{rest}"


def describe(codebook: Codebook, codes: Tensor) -> dict[str, Any]:
    """A tensor's part of a record."""
    levels = Levels.of_codes(codebook, codes)
    return {
        "num_weights": levels.num_weights,
        "num_zero": levels.num_zero,
        "zeros": round(levels.zeros, 6),
        "powers": [list(line) for line in levels.powers],
        "entropy": round(levels.entropy, 6),
        "num_bits": codebook.num_bits,
        "n_1": codebook.n_1,
        "n_2": codebook.n_2,
    }


def entropy_of_all(tensors: Sequence[Levels]) -> float:
    """Bits a weight where each tensor has a code of its own: the mean over weights."""
    num_weights = sum(tensor.num_weights for tensor in tensors)
    return sum(tensor.entropy * tensor.num_weights for tensor in tensors) / num_weights
