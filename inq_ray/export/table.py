"""Statistics of a result's tensors: levels in use, zeros, entropy, bytes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from inq_ray.core.channels import AnyCodebook
from inq_ray.export.packed.coding import compress_codes
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
            rows.append(_quantized(name, found.codebook, found.codes, found.num_bytes))
        else:
            size = tensor.numel() * tensor.element_size()
            rows.append(TensorRow(name=name, shape=tuple(tensor.shape), num_values=tensor.numel(), num_bytes=size))
    return tuple(rows)


def rows_of_codes(codes: Mapping[str, tuple[AnyCodebook, Tensor]]) -> tuple[TensorRow, ...]:
    """Return a row for each quantized tensor, with the bytes that it needs in a packed file."""
    return tuple(
        _quantized(name, codebook, each, len(compress_codes(each, codebook.num_bits)[1]))
        for name, (codebook, each) in codes.items()
    )


def _quantized(name: str, codebook: AnyCodebook, codes: Tensor, num_bytes: int) -> TensorRow:
    values, counts = torch.unique(codebook.decode(codes, torch.float64), return_counts=True)
    shares = counts.double() / max(1, codes.numel())
    exponents = [math.frexp(value)[1] - 1 for value in values.abs().tolist() if value]
    return TensorRow(
        name=name,
        shape=tuple(codes.shape),
        bits=codebook.num_bits,
        levels=codebook.levels,
        exponents=(min(exponents), max(exponents)) if exponents else None,
        num_values=codes.numel(),
        num_zero=int((codes == 0).sum()),
        num_levels=len(values),
        entropy=float(-(shares * shares.log2()).sum()) + 0.0,
        num_bytes=num_bytes,
    )
