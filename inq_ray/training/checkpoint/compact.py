"""Compact checkpoints: frozen weights are stored as codes; their floats, momentum and averages follow from these.

For a weight tensor with n elements, f of them frozen at b bits, a snapshot has

    weight 4 n    momentum 4 n    average 4 n    mask n    codes n                          bytes (float32)

and its compact form

    live weights 4 (n - f)    the same for momentum and average    mask n / 8    codes b f / 8

without a mask if none or all weights are frozen. If a frozen weight's value does not follow from its code (momentum and
average could be anything in another optimizer), the tensor is stored as it is: compacting is always lossless.
"""

import dataclasses
import math

import torch
from torch import Tensor

from inq_ray.core.channels import AnyCodebook
from inq_ray.core.codebook import float_format
from inq_ray.core.packing import indices, pack_codes, packed_size, unpack_codes
from inq_ray.training.checkpoint.facts import TensorFacts
from inq_ray.training.checkpoint.snapshot import CODES, FROZEN, LIVE_KINDS, MODEL, MOMENTUM, Snapshot


def compact(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot in fewer bytes; :func:`expand` restores the same bits.

    Args:
        snapshot: Snapshot with tensors on the CPU, in any memory format; not changed.
    """
    tensors = dict(snapshot.tensors)
    quantized = dict(snapshot.facts.quantized)
    for name, entry in quantized.items():
        frozen, codes = tensors.pop(FROZEN + name), tensors.pop(CODES + name)
        num_frozen, live_only = int(torch.count_nonzero(frozen)), []
        if num_frozen:
            flat = frozen.reshape(-1)
            live = indices(~flat)
            if num_frozen < frozen.numel():
                tensors[FROZEN + name] = pack_codes(flat, 1)
            tensors[CODES + name] = pack_codes(codes.reshape(-1).index_select(0, indices(flat)), entry.num_bits)
            for kind in LIVE_KINDS:
                if kind + name not in tensors:
                    continue
                values = tensors[kind + name].reshape(-1)
                if _follows(values, flat, _at_frozen(kind, entry.codebook, codes, values.dtype)):
                    tensors[kind + name] = values.index_select(0, live)
                    live_only.append(kind)
        quantized[name] = dataclasses.replace(
            entry, shape=tuple(frozen.shape), num_frozen=num_frozen, live_only=tuple(live_only)
        )
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return Snapshot(tensors, snapshot.facts.with_quantized(quantized))


def expand(snapshot: Snapshot) -> Snapshot:
    """Return the argument of :func:`compact`; tensors are contiguous, on the CPU.

    Raises:
        ValueError: It is not a compact snapshot; names the tensor.
    """
    tensors = dict(snapshot.tensors)
    quantized = dict(snapshot.facts.quantized)
    for name, entry in quantized.items():
        shape, num_frozen, live_only = entry.shape, entry.num_frozen, entry.live_only
        if len(set(live_only)) < len(live_only) or set(live_only) - set(LIVE_KINDS):
            raise ValueError(f"the checkpoint has only live values of {live_only!r:.80} of {name}")
        count = math.prod(shape)
        # Nothing is allocated by the facts before a tensor of that size is found.
        _check_size(tensors, MODEL + name, (count - num_frozen,) if MODEL in live_only else shape)
        packed = _take(tensors, CODES + name, packed_size(entry.num_bits, num_frozen)) if num_frozen else None
        if 0 < num_frozen < count:
            flat = unpack_codes(_take(tensors, FROZEN + name, packed_size(1, count)), 1, count).bool()
        else:
            flat = torch.full((count,), num_frozen > 0)
        codes = torch.zeros(count, dtype=torch.uint8)
        if packed is not None:
            frozen_codes = unpack_codes(packed, entry.num_bits, num_frozen)
            frozen, alive = indices(flat), indices(~flat)
            if len(frozen) != num_frozen:
                raise ValueError(f"the checkpoint has {num_frozen} codes of {name} for {len(frozen)} frozen weights")
            codes.index_copy_(0, frozen, frozen_codes)
            for kind in live_only:
                live = _take(tensors, kind + name, None)
                if len(live) != len(alive):
                    raise ValueError(f"the checkpoint has {len(live)} live values in {kind}{name} for {len(alive)}")
                values = _at_frozen(kind, entry.codebook, codes.view(shape), live.dtype)
                tensors[kind + name] = values.index_copy_(0, alive, live).view(shape)
        tensors[FROZEN + name], tensors[CODES + name] = flat.view(shape), codes.view(shape)
        quantized[name] = TensorFacts.of(entry.codebook)
    return Snapshot(tensors, snapshot.facts.with_quantized(quantized))


def _at_frozen(kind: str, codebook: AnyCodebook, codes: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a kind of tensor's values at frozen weights, flat: the level for weight and average, +0.0 for momentum."""
    return torch.zeros(codes.numel(), dtype=dtype) if kind == MOMENTUM else codebook.decode(codes, dtype).reshape(-1)


def _follows(values: Tensor, frozen: Tensor, expected: Tensor) -> bool:
    """Return whether values (float [n]) have the bits of `expected` (float [n], +0.0 elsewhere) at frozen weights."""
    bits = float_format(values.dtype).bits_dtype
    return torch.equal(values.view(bits) * frozen.view(torch.uint8), expected.view(bits))


def _check_size(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> None:
    if name not in tensors:
        raise ValueError(f"the checkpoint lacks {name}")
    if tensors[name].shape != shape:
        raise ValueError(f"the checkpoint has {name} in shape {list(tensors[name].shape)}, expected {list(shape)}")


def _take(tensors: dict[str, Tensor], name: str, num_bytes: int | None) -> Tensor:
    """Remove a tensor and return it, flat."""
    if name not in tensors:
        raise ValueError(f"the checkpoint lacks {name}")
    tensor = tensors.pop(name).reshape(-1)
    if num_bytes is not None and (tensor.dtype, tensor.numel()) != (torch.uint8, num_bytes):
        raise ValueError(f"the checkpoint has {tensor.numel()} of {tensor.dtype} as {name}, expected {num_bytes} bytes")
    return tensor
