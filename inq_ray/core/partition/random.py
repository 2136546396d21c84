"""Strategy "random": all live weights are equally likely to freeze next."""

import hashlib

import torch
from torch import Tensor


def keys(weight: Tensor, seed: int, stage: int, name: str) -> Tensor:
    """Return uniform int32 keys, drawn on the CPU, whose generator gives the same numbers on every machine.

    See :data:`inq_ray.core.partition.STRATEGIES`.
    """
    digest = hashlib.blake2b(f"{seed}/{stage}/{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
    drawn = torch.empty(weight.shape, dtype=torch.int32, device="cpu").random_(generator=generator)
    return drawn.to(weight.device)
