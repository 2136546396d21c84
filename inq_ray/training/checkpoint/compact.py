"""Frozen weights as codes: a checkpoint keeps no float of theirs, no momentum, no average, since all follow from codes.

Of a weight tensor with n elements, of which f are frozen at b bits, a snapshot holds

    weight 4 n    momentum 4 n    average 4 n    mask n    codes n                          bytes (float32)

and its compact form

    live weights 4 (n - f)    as much of momentum and average    mask n / 8    codes b f / 8

without a mask where none or all are frozen. Where a value at a frozen weight is not what its code says (momentum and
average could be anything in another optimizer), that tensor stays as it is: compacting loses nothing, ever.
"""

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from inq_ray.core.channels import AnyCodebook
from inq_ray.core.codebook import float_format
from inq_ray.core.packing import pack_codes, packed_size, unpack_codes
from inq_ray.training.checkpoint.facts import TensorFacts
from inq_ray.training.checkpoint.snapshot import CODES, FROZEN, LIVE_KINDS, MODEL, MOMENTUM, Snapshot


def compact(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot in fewer bytes; :func:`expand` gives the same bits back.

    Args:
        snapshot: its tensors on the CPU, in any memory format; left as it is.
    """
    tensors = dict(snapshot.tensors)
    quantized = dict(snapshot.facts.quantized)
    for name, entry in quantized.items():
        frozen, codes = tensors.pop(FROZEN + name), tensors.pop(CODES + name)
        num_frozen, live_only = int(torch.count_nonzero(frozen)), []
        if num_frozen:
            flat = frozen.reshape(-1)
            live = _indices(~flat)
            if num_frozen < frozen.numel():
                tensors[FROZEN + name] = pack_codes(flat, 1)
            tensors[CODES + name] = pack_codes(codes.reshape(-1).index_select(0, _indices(flat)), entry.num_bits)
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
    """Return what :func:`compact` was given; tensors come out contiguous, on the CPU.

    Raises:
        ValueError: it is no compact snapshot; names the tensor.
    """
    tensors = dict(snapshot.tensors)
    quantized = dict(snapshot.facts.quantized)
    for name, entry in quantized.items():
        shape, num_frozen, live_only = entry.shape, entry.num_frozen, entry.live_only
        if len(set(live_only)) < len(live_only) or set(live_only) - set(LIVE_KINDS):
            raise ValueError(f"the checkpoint has only live values of {live_only!r:.80} of {name}")
        count = math.prod(shape)
        # Nothing is made as large as facts say before a tensor is found to be.
        _check_size(tensors, MODEL + name, (count - num_frozen,) if MODEL in live_only else shape)
        packed = _take(tensors, CODES + name, packed_size(entry.num_bits, num_frozen)) if num_frozen else None
        if 0 < num_frozen < count:
            flat = unpack_codes(_take(tensors, FROZEN + name, packed_size(1, count)), 1, count).bool()
        else:
            flat = torch.full((count,), num_frozen > 0)
        codes = torch.zeros(count, dtype=torch.uint8)
        if packed is not None:
            frozen_codes = unpack_codes(packed, entry.num_bits, num_frozen)
            frozen, alive = _indices(flat), _indices(~flat)
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
    """Return what a tensor of a kind holds at frozen weights, flat: weight and average the level, momentum +0.0."""
    return torch.zeros(codes.numel(), dtype=dtype) if kind == MOMENTUM else codebook.decode(codes, dtype).reshape(-1)


def _indices(mask: Tensor) -> Tensor:
    """Return where a mask (bool [n]) is true, int64.

    They select ten times as fast as a mask, and NumPy finds them fastest.
    """
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _follows(values: Tensor, frozen: Tensor, expected: Tensor) -> bool:
    """Return whether values (float [n]) have at frozen weights the bits of `expected` (float [n], +0.0 elsewhere)."""
    bits = float_format(values.dtype).bits_dtype
    return torch.equal(values.view(bits) * frozen.view(torch.uint8), expected.view(bits))


def _check_size(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> None:
    if name not in tensors:
        raise ValueError(f"the checkpoint lacks {name}")
    if tensors[name].shape != shape:
        raise ValueError(f"the checkpoint has {name} in shape {list(tensors[name].shape)}, {list(shape)} is due")


def _take(tensors: dict[str, Tensor], name: str, num_bytes: int | None) -> Tensor:
    """Remove a tensor and return it, flat."""
    if name not in tensors:
        raise ValueError(f"the checkpoint lacks {name}")
    tensor = tensors.pop(name).reshape(-1)
    if num_bytes is not None and (tensor.dtype, tensor.numel()) != (torch.uint8, num_bytes):
        raise ValueError(f"the checkpoint has {tensor.numel()} of {tensor.dtype} as {name}, {num_bytes} bytes are due")
    return tensor
