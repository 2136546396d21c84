"""Digests of tensors: one SHA-256 per tensor, and one over all of them."""

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor


def digest_tensors(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the SHA-256 (hex) of each tensor's dtype, shape and bytes.

    Bytes are taken in logical (row-major) order, so neither memory format nor device matters. Signs of zero and NaN
    payloads do: two tensors have the same digest only if they are equal bit for bit.
    """
    return {name: _digest(tensor) for name, tensor in tensors.items()}


def summary(digests: Mapping[str, str]) -> str:
    """Return one SHA-256 (hex) over all names and digests, independent of their order in the dictionary."""
    return hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()


def _digest(tensor: Tensor) -> str:
    hasher = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}\n".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel():
        hasher.update(flat.view(torch.uint8).numpy().data)
    return hasher.hexdigest()
