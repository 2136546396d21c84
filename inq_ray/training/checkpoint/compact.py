"""Compact checkpoints: frozen weights are stored as codes; their floats, momentum and averages follow from these.

For a weight tensor with n elements, f of them frozen at b bits, a snapshot has

    weight 4 n    momentum 4 n    average 4 n    mask n    codes n                          bytes (float32)

and its compact form

    live weights 4 (n - f)    the same for momentum and average    mask n / 8    codes b f / 8

without a mask if none or all weights are frozen. If a frozen weight's value does not follow from its code (momentum and
average could be anything in another optimizer), the tensor is stored as it is: compacting is always lossless.
:class:`inq_ray.training.checkpoint.stored.StoredTensors` reads it.
"""

import dataclasses

import torch
from torch import Tensor

from inq_ray.core.channels import AnyCodebook
from inq_ray.core.codebook import float_format
from inq_ray.core.packing import indices, pack_codes
from inq_ray.training.checkpoint.snapshot import CODES, FROZEN, LIVE_KINDS, MOMENTUM, Snapshot


def compact(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot in fewer bytes, with the same bits.

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
                if _follows(values, flat, at_frozen(kind, entry.codebook, codes, values.dtype)):
                    tensors[kind + name] = values.index_select(0, live)
                    live_only.append(kind)
        quantized[name] = dataclasses.replace(
            entry, shape=tuple(frozen.shape), num_frozen=num_frozen, live_only=tuple(live_only)
        )
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return Snapshot(tensors, snapshot.facts.with_quantized(quantized))


def at_frozen(kind: str, codebook: AnyCodebook, codes: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a kind of tensor's values at frozen weights, flat: the level for weight and average, +0.0 for momentum."""
    return torch.zeros(codes.numel(), dtype=dtype) if kind == MOMENTUM else codebook.decode(codes, dtype).reshape(-1)


def _follows(values: Tensor, frozen: Tensor, expected: Tensor) -> bool:
    """Return whether values (float [n]) have the bits of `expected` (float [n], +0.0 elsewhere) at frozen weights."""
    bits = float_format(values.dtype).bits_dtype
    return torch.equal(values.view(bits) * frozen.view(torch.uint8), expected.view(bits))
