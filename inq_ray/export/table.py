"""Statistics of a result's tensors: levels in use, zeros, entropy, bytes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inq_ray.export.packed.reader import PackedFile


@dataclass(frozen=True, kw_only=True)
class TensorRow:
    """A tensor of a result.

    Attributes:
        name: Name in the network's state.
        shape: Shape of the tensor.
        bits: Bits per weight; None = the tensor stays float.
        levels: "paper" or "full"; "" for float tensors.
        exponents: Smallest and largest k of the ±2^k that occur; None for float tensors, and if all weights are 0.
        num_values: Number of weights.
        num_zero: Number of those that are 0.
        num_levels: Number of different values that occur.
        entropy: -Σ p log2 p over the values, in bits per weight; 0 for float tensors.
        num_bytes: Bytes in the packed file.
    """

    name: str
    shape: tuple[int, ...]
    bits: int | None = None
    levels: str = ""
    exponents: tuple[int, int] | None = None
    num_values: int
    num_zero: int = 0
    num_levels: int = 0
    entropy: float = 0.0
    num_bytes: int


def rows_of(packed: PackedFile) -> tuple[TensorRow, ...]:
    """Return a row for each tensor of a packed file; a tied tensor has one, under its first name."""
    rows = []
    seen: set[int] = set()
    for name, tensor in packed.state.items():
        if tensor.numel() and tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        if name in packed.quantized:
            found = packed.quantized[name]
            rows.append(row_of(name, tensor, found.codebook.num_bits, found.codebook.levels, found.num_bytes))
        else:
            size = tensor.numel() * tensor.element_size()
            rows.append(TensorRow(name=name, shape=tuple(tensor.shape), num_values=tensor.numel(), num_bytes=size))
    return tuple(rows)


def row_of(name: str, weight: Tensor, bits: int, levels: str, num_bytes: int) -> TensorRow:
    """Return the row of a quantized tensor.

    Args:
        name: Name in the network's state.
        weight: float [*], every value 0 or a power of two.
        bits: Bits of a weight.
        levels: "paper" or "full".
        num_bytes: Bytes in the packed file.
    """
    values, counts = torch.unique(weight.double(), return_counts=True)
    shares = counts.double() / max(1, weight.numel())
    exponents = [math.frexp(value)[1] - 1 for value in values.abs().tolist() if value]
    return TensorRow(
        name=name,
        shape=tuple(weight.shape),
        bits=bits,
        levels=levels,
        exponents=(min(exponents), max(exponents)) if exponents else None,
        num_values=weight.numel(),
        num_zero=int((weight == 0).sum()),
        num_levels=len(values),
        entropy=float(-(shares * shares.log2()).sum()) + 0.0,
        num_bytes=num_bytes,
    )
