"""Quantized tensors of a run: levels in use, frozen weights and error by layer."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inq_ray.core.portions import num_frozen
from inq_ray.export.packed.reader import PackedFile
from inq_ray.export.table import TensorRow, row_of, rows_of
from inq_ray.training.checkpoint.snapshot import CODES, FROZEN, MODEL, Snapshot


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A quantized tensor.

    Attributes:
        row: Statistics of its frozen weights; `num_bytes` is 0 if there is no packed file.
        num_weights: Number of all its weights.
        powers: Number of frozen weights ±2^k by k; zeros are not in it.
    """

    row: TensorRow
    num_weights: int
    powers: Mapping[int, int]


def layers_of_result(packed: PackedFile) -> tuple[Layer, ...]:
    """Return the quantized tensors of a packed file, in the network's order."""
    return tuple(
        Layer(row=row, num_weights=row.num_values, powers=_powers(packed.state[row.name]))
        for row in rows_of(packed)
        if row.bits is not None
    )


def layers_of_checkpoint(snapshot: Snapshot) -> tuple[Layer, ...]:
    """Return the tensors that an unfinished run quantizes, with statistics of the weights frozen so far."""
    layers = []
    for name, facts in snapshot.facts.quantized.items():
        frozen, weight = snapshot.tensors[FROZEN + name], snapshot.tensors[MODEL + name]
        assert CODES + name in snapshot.tensors, name
        row = row_of(name, weight[frozen], facts.num_bits, facts.levels, 0)
        layers.append(Layer(row=row, num_weights=weight.numel(), powers=_powers(weight[frozen])))
    return tuple(layers)


def frozen_by_stage(layers: Sequence[Layer], portions: Sequence[float]) -> list[list[int]]:
    """Return how many weights each stage froze, a list for each layer.

    Args:
        layers: Quantized tensors.
        portions: Accumulated portions of the stages.
    """
    found = []
    for layer in layers:
        totals = [0, *(num_frozen(portion, layer.num_weights) for portion in portions)]
        found.append([after - before for before, after in itertools.pairwise(totals)])
    return found


def _powers(weight: Tensor) -> dict[int, int]:
    exponents, counts = torch.unique(torch.frexp(weight[weight != 0].double())[1] - 1, return_counts=True)
    return dict(zip(exponents.tolist(), counts.tolist(), strict=True))
