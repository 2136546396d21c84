"""Table of a network's parameters: bits of each, or why it stays float; shown by --dry-run."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import ParametrizationList

from inq_ray.core.unwrap import unwrap
from inq_ray.files.shown import counted
from inq_ray.models.layer_weights import named_parameters
from inq_ray.models.selection import choose

_NORMALIZATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One parameter.

    Attributes:
        name: Name as in `named_parameters()`.
        module: Type of the module that holds it, such as "Conv2d".
        shape: Shape of the tensor.
        bits: Bits of a quantized weight; None = float.
        why_float: "" if quantized; else "bias", "normalization", "embedding", "recurrent", "skipped" (kept by a
            pattern), "not asked for" (no bits are set), "computed" (a parametrization computes a weight from it), or
            "no layer's weight" (positions, scales, tokens).
    """

    name: str
    module: str
    shape: tuple[int, ...]
    bits: int | None
    why_float: str

    @property
    def num_values(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class LayerSum:
    """Parameters with the same bits, or with the same reason to stay float, summed up."""

    bits: int | None
    why_float: str
    num_tensors: int
    num_values: int


class Summary(tuple[LayerRow, ...]):
    """Rows of :func:`summary`; `print` shows them as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        cells = [("parameter", "module", "shape", "values", "bits")]
        for row in self:
            shape, bits = "x".join(map(str, row.shape)) or "1", str(row.bits or f"float ({row.why_float})")
            cells.append((row.name, row.module, shape, f"{row.num_values:,}", bits))
        for group in sums(self):
            bits = f"{group.bits} bits" if group.bits else f"float ({group.why_float})"
            cells.append((counted(group.num_tensors, "tensor"), "", "", f"{group.num_values:,}", bits))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [[f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)] for line in cells]
        return "\n".join("  ".join(line).rstrip() for line in lines)


def summary(
    model: nn.Module,
    weight_bits: int | None = 5,
    skip: Iterable[str] = (),
    bits: Mapping[str, int] | None = None,
    include: Iterable[str] = (),
) -> Summary:
    """Return which parameters are quantized at how many bits, and which stay float and why.

    Args:
        model: The network, wrapped or not.
        weight_bits: As for :func:`inq_ray.param_groups`, like the following.
        skip: Patterns of weights that stay float.
        bits: Bits by pattern.
        include: Patterns of other weights to quantize.

    Raises:
        ValueError: As :func:`inq_ray.param_groups`.

    Examples:
        >>> print(summary(nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 4)), weight_bits=4))
        parameter  module     shape  values  bits
        0.weight   Embedding  100x8  800     float (embedding)
        1.weight   Linear     4x8    32      4
        1.bias     Linear     4      4       float (bias)
        1 tensor                     32      4 bits
        1 tensor                     800     float (embedding)
        1 tensor                     4       float (bias)
    """
    return Summary(describe(model, weight_bits, skip, bits, include))


def describe(
    model: nn.Module,
    weight_bits: int | None = 5,
    skip: Iterable[str] = (),
    bits: Mapping[str, int] | None = None,
    include: Iterable[str] = (),
) -> tuple[LayerRow, ...]:
    """Return a row per parameter, in the order of `named_parameters()`; arguments and errors as in `param_groups`."""
    model = unwrap(model)
    chosen = choose(model, weight_bits, skip=skip, bits=bits, include=include)
    kept = "skipped" if weight_bits is not None else "not asked for"
    rows = []
    for (name, parameter), owner in zip(named_parameters(model), _owners(model), strict=True):
        num_bits = chosen.get(name)
        why_float = "" if num_bits else kept if name in chosen else _why(name, owner)
        shape = tuple(parameter.shape)
        rows.append(LayerRow(name=name, module=type(owner).__name__, shape=shape, bits=num_bits, why_float=why_float))
    return tuple(rows)


def sums(rows: Iterable[LayerRow]) -> tuple[LayerSum, ...]:
    """Return the sums of rows: quantized ones by ascending bits, then float ones by reason, in the order of rows."""
    groups: dict[tuple[int | None, str], list[LayerRow]] = {}
    for row in rows:
        groups.setdefault((row.bits, row.why_float), []).append(row)
    order = sorted(groups, key=lambda key: math.inf if key[0] is None else key[0])
    return tuple(
        LayerSum(
            bits=key[0],
            why_float=key[1],
            num_tensors=len(groups[key]),
            num_values=sum(row.num_values for row in groups[key]),
        )
        for key in order
    )


def _owners(model: nn.Module) -> list[nn.Module]:
    """Return the module that holds each parameter, by the parameter's first name."""
    return [model.get_submodule(name.rpartition(".")[0]) for name, _ in model.named_parameters()]


def _why(name: str, owner: nn.Module) -> str:
    """Return why a parameter that is not a layer's weight stays float; normalization is recognized by class name."""
    if isinstance(owner, _NORMALIZATIONS) or "norm" in type(owner).__name__.lower():
        return "normalization"
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if isinstance(owner, ParametrizationList):
        return "computed"
    key = name.rpartition(".")[2]
    if key.endswith("bias") or key.startswith("bias_"):  # attention's bias_k, an LSTM's bias_ih_l0
        return "bias"
    return "recurrent" if isinstance(owner, nn.RNNBase) else "no layer's weight"
