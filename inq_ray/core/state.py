"""INQ state of one weight tensor: its codebook, which weights are frozen, and their codes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from inq_ray.core.channels import AnyCodebook, Per, undecided
from inq_ray.core.codebook import Levels


@dataclass
class TensorState:
    """INQ state of one weight tensor; a run has one per parameter name.

    Attributes:
        codebook: Levels of this tensor, fixed at the first stage in which it (or a channel) has a non-zero weight.
        frozen: bool, the weight's shape, contiguous; True = frozen.
        codes: uint8, the weight's shape, contiguous; 0 for live weights.
    """

    codebook: AnyCodebook
    frozen: Tensor
    codes: Tensor

    @classmethod
    def live(cls, weight: Tensor, num_bits: int, levels: Levels = "paper", per: Per = "tensor") -> "TensorState":
        """Return the state of a tensor without frozen weights."""
        return cls(
            codebook=undecided(weight, num_bits, levels, per),
            frozen=torch.zeros(weight.shape, dtype=torch.bool, device=weight.device),
            codes=torch.zeros(weight.shape, dtype=torch.uint8, device=weight.device),
        )

    @property
    def num_frozen(self) -> int:
        """Number of frozen weights."""
        return int(torch.count_nonzero(self.frozen))
