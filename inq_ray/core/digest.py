"""Digests of tensors: one per tensor, SHA-256 if it is published, and one over all of them."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor


class Hasher(Protocol):
    """A hash function's state, as hashlib makes it."""

    def update(self, data: memoryview, /) -> None:
        """Add bytes."""

    def hexdigest(self) -> str:
        """Return the digest (hex) of all bytes so far."""


def digest_tensors(tensors: Mapping[str, Tensor], hasher: Callable[[bytes], Hasher] = hashlib.sha256) -> dict[str, str]:
    """Return the digest (hex) of each tensor's dtype, shape and bytes.

    Bytes are taken in logical (row-major) order, so neither memory format nor device matters. Signs of zero and NaN
    payloads do: two tensors have the same digest only if they are equal bit for bit.

    Args:
        tensors: Tensors by name, any dtype and device.
        hasher: Hash function; SHA-256 for what is written to files.
    """
    return {name: _digest(tensor, hasher) for name, tensor in tensors.items()}


def summary(digests: Mapping[str, str]) -> str:
    """Return one SHA-256 (hex) over all names and digests, independent of their order in the dictionary."""
    return hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()


def _digest(tensor: Tensor, hasher: Callable[[bytes], Hasher]) -> str:
    state = hasher(f"{tensor.dtype} {list(tensor.shape)}\n".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel():
        state.update(flat.view(torch.uint8).numpy().data)
    return state.hexdigest()
