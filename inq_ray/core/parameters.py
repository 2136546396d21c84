"""Parameters of an optimizer by name, and which of them can be quantized."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from inq_ray.core.channels import undecided
from inq_ray.core.codebook import float_format
from inq_ray.core.optim.sgd import SGD
from inq_ray.core.owners import shown
from inq_ray.core.state import TensorState


def grouped_params(optimizer: SGD) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Return (group, name, parameter) of all parameters; those added without names are named ``GROUP.INDEX``."""
    for number, group in enumerate(optimizer.param_groups):
        names = group.get("param_names") or [f"{number}.{index}" for index in range(len(group["params"]))]
        for name, param in zip(names, group["params"], strict=True):
            yield group, name, param


def named_params(optimizer: SGD) -> Iterator[tuple[str, Tensor]]:
    """Return (name, parameter) of all parameters."""
    for _, name, param in grouped_params(optimizer):
        yield name, param


def state_of_new(name: str, param: Tensor, group: Mapping[str, Any]) -> TensorState:
    """Return the state of a new parameter, which must be a plain tensor of a dtype that can be quantized."""
    if param.is_meta:
        raise ValueError(f"{shown(name)} is on the meta device, without values: initialize the model first")
    if type(param.data) is not Tensor or param.layout != torch.strided:
        raise ValueError(
            f"{shown(name)} is a {type(param.data).__name__} of layout {param.layout}, as created by sharding or by "
            "quantization of other libraries: only plain tensors can be quantized; skip it in inq_ray.param_groups"
        )
    try:
        float_format(param.dtype)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return TensorState.live(param, group["weight_bits"], group["levels"], group["codebook_per"])


def is_of(state: TensorState, param: Tensor, group: Mapping[str, Any]) -> bool:
    """Return whether a state has the levels of a parameter's group, and the same number of n_1."""
    due = undecided(param, group["weight_bits"], group["levels"], group["codebook_per"])
    return state.codebook.levels == due.levels and type(state.codebook) is type(due)


def check_memory(params: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
    """Refuse parameters that share memory with another one: each would be frozen without the other."""
    spans: dict[int, list[tuple[int, int, str]]] = {}
    for name, param in params.items():
        if param.layout == torch.strided and param.numel():
            last = sum((size - 1) * stride for size, stride in zip(param.shape, param.stride(), strict=True))
            start, size = int(param.storage_offset()) * param.itemsize, (last + 1) * param.itemsize
            spans.setdefault(param.untyped_storage()._cdata, []).append((start, start + size, name))  # noqa: SLF001
    for each in spans.values():
        furthest = furthest_new = (0, "")  # end and name of what reaches furthest so far
        for start, end, name in sorted(each):
            reached, other = furthest if name in new else furthest_new
            if start < reached:
                raise ValueError(
                    f"{shown(other)} and {shown(name)} are two parameters in the same memory: use one, as by "
                    "layer.weight = other.weight (the Parameter, not its .data), before param_groups"
                )
            furthest = max(furthest, (end, name))
            furthest_new = max(furthest_new, (end, name)) if name in new else furthest_new
