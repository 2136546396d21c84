"""Packing of codes of 1 to 8 bits, without gaps between them."""

import torch
from torch import Tensor


def packed_size(num_bits: int, count: int) -> int:
    """Return the number of bytes for ``count`` codes of ``num_bits``."""
    return (num_bits * count + 7) // 8


def pack_codes(codes: Tensor, num_bits: int) -> Tensor:
    """Pack codes, the first in the lowest bits of the first byte.

    Args:
        codes: uint8 or bool [n], each below 2^num_bits.
        num_bits: 1 to 8.

    Returns:
        uint8 [ceil(n · num_bits / 8)] on the same device; bits after the last code are 0.
    """
    assert 1 <= num_bits <= 8, f"{num_bits=}"
    count = codes.numel()
    groups = torch.nn.functional.pad(codes.reshape(-1).to(torch.uint8), (0, -count % 8)).view(-1, 8)
    # Eight codes make num_bits whole bytes: they are gathered in a 64-bit word, whose low bytes are kept.
    words = torch.zeros(len(groups), dtype=torch.int64, device=codes.device)
    for position in range(8):
        words |= groups[:, position].long() << (num_bits * position)
    packed = words.view(torch.uint8).view(-1, 8)[:, :num_bits].reshape(-1)
    return packed[: packed_size(num_bits, count)]


def unpack_codes(packed: Tensor, num_bits: int, count: int) -> Tensor:
    """Inverse of :func:`pack_codes`.

    Args:
        packed: uint8 [ceil(count · num_bits / 8)].
        num_bits: 1 to 8.
        count: Number of codes.

    Returns:
        uint8 [count].
    """
    assert 1 <= num_bits <= 8, f"{num_bits=}"
    assert packed.numel() == packed_size(num_bits, count), f"{packed.numel()=} {num_bits=} {count=}"
    num_groups = (count + 7) // 8
    parts = torch.zeros(num_groups * num_bits, dtype=torch.uint8, device=packed.device)
    parts[: packed.numel()] = packed
    words = torch.nn.functional.pad(parts.view(num_groups, num_bits), (0, 8 - num_bits)).view(torch.int64)
    mask = (1 << num_bits) - 1
    codes = [((words >> (num_bits * position)) & mask).to(torch.uint8) for position in range(8)]
    return torch.cat(codes, dim=1).reshape(-1)[:count]
