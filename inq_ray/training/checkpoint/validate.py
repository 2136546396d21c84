"""Validation of a snapshot's tensors against its facts.

Digests show that files are as they were written. Here and in :mod:`inq_ray.training.checkpoint.facts` it is checked
whether a run can have written them: the stage's number of frozen weights, codes that their codebook has. So files from
others, or from a faulty program, are refused with one line.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from inq_ray.core.portions import num_frozen
from inq_ray.training.checkpoint.facts import TensorFacts
from inq_ray.training.checkpoint.snapshot import (
    AVERAGE,
    CODES,
    FROZEN,
    LIVE_KINDS,
    MODEL,
    MOMENTUM,
    SUMS,
    TEACHER,
    Snapshot,
    of_kind,
)
from inq_ray.training.checkpoint.stored import Masks, layout_of, masks_of


def check_tensors(snapshot: Snapshot) -> None:
    """Refuse tensors that do not match the facts.

    Args:
        snapshot: The snapshot; of a stored one only masks and codes are read.

    Raises:
        ValueError: A tensor does not match; names it.
    """
    tensors, facts = layout_of(snapshot), snapshot.facts
    model, averages = of_kind(tensors, MODEL), of_kind(tensors, AVERAGE)
    kinds = (*LIVE_KINDS, TEACHER, FROZEN, CODES)
    strange = [name for name in tensors if name != SUMS and not name.startswith(kinds)]
    if strange:
        raise ValueError(f"tensor {strange[0]!r:.80} is of an unknown kind")
    for kind in (MOMENTUM, TEACHER):
        for name, tensor in of_kind(tensors, kind).items():
            _check_like(kind + name, tensor, model.get(name), lambda dtype: dtype)
    for name, tensor in averages.items():
        _check_like(AVERAGE + name, tensor, model.get(name), lambda dtype: torch.promote_types(dtype, torch.float32))
    if bool(averages) != facts.has_ema:
        raise ValueError(f"has_ema is {facts.has_ema}, with {len(averages)} averages")
    sums = tensors.get(SUMS)
    if sums is None or (sums.dtype, sums.shape) != (torch.float64, (facts.world_size, 3)):
        raise ValueError(f"{SUMS} is {_kind_of(sums)}, with {facts.world_size} ranks")
    for kind in (FROZEN, CODES):
        if (there := of_kind(tensors, kind)).keys() != facts.quantized.keys():
            raise ValueError(f"there are {len(there)} tensors {kind}, but {len(facts.quantized)} quantized ones")
    for name in facts.quantized:
        _check_like(FROZEN + name, tensors[FROZEN + name], model.get(name), lambda _: torch.bool)
        _check_like(CODES + name, tensors[CODES + name], model.get(name), lambda _: torch.uint8)
    for name, masks in masks_of(snapshot).items():
        assert facts.inq is not None
        _check_quantized(name, facts.quantized[name], facts.inq.portions[facts.inq.stage - 1], masks)


def _check_quantized(name: str, entry: TensorFacts, portion: float, masks: Masks) -> None:
    frozen, codes = masks
    count, due = int(torch.count_nonzero(frozen)), num_frozen(portion, frozen.numel())
    if count != due:
        raise ValueError(f"{name} has {count} frozen weights of {frozen.numel()}, expected {due} at {portion:g}")
    if entry.codebook.strange_code(codes) is not None or bool((codes != 0).logical_and_(~frozen).any()):
        raise ValueError(f"{name} has codes that are not in its codebook, or codes of live weights")


def _check_like(name: str, tensor: Tensor, weight: Tensor | None, due: Callable[[torch.dtype], torch.dtype]) -> None:
    """Refuse a shape other than that of the network's tensor, and a dtype other than `due` returns for its dtype."""
    if weight is None or (tensor.shape, tensor.dtype) != (weight.shape, due(weight.dtype)):
        raise ValueError(f"{name} is {_kind_of(tensor)}, the network's {_kind_of(weight)}")


def _kind_of(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)!r:.80}"
