"""Statistics of a result's tensors: levels in use, zeros, entropy, bytes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


class Sizes(NamedTuple):
    """Bytes of a network's tensors in other forms.

    Attributes:
        as_float: Each tensor in its own dtype.
        as_int8: The same, with a byte for each quantized weight.
        limit: The same, with the entropy of each quantized weight, the least that a code of single weights needs.
    """

    as_float: int
    as_int8: int
    limit: float


def sizes_of(packed: PackedFile, rows: Sequence[TensorRow]) -> Sizes:
    """Return the sizes of a result; a tied tensor counts once, as in the packed file.

    Args:
        packed: Contents of its packed file.
        rows: Rows of its tensors.
    """
    as_float = sum(packed.state[row.name].nbytes for row in rows)
    quantized = [row for row in rows if row.bits is not None]
    rest = as_float - sum(packed.state[row.name].nbytes for row in quantized)
    weights = sum(row.num_values for row in quantized)
    entropy = sum(row.entropy * row.num_values for row in quantized) / 8
    return Sizes(as_float, rest + weights, rest + entropy)


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
    values, counts = torch.unique(weight, return_counts=True)
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
