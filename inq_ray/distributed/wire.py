"""Rank, world size, and bytes between ranks.

Only bytes and counts are sent, and nothing is pickled. Works with gloo and nccl; without a process group, or with one
rank, every function returns its argument.
"""

from collections.abc import Iterable
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

# Ranks that communicate: a torch.distributed.ProcessGroup, or None for all. Ranks count within the group.
Group: TypeAlias = "dist.ProcessGroup | None"


def world_size(group: Group = None) -> int:
    """Return the number of ranks; 1 if torch.distributed is not initialized."""
    return dist.get_world_size(group) if _is_initialized() else 1


def rank(group: Group = None) -> int:
    """Return this process's rank, 0 <= rank < world_size(); 0 if torch.distributed is not initialized."""
    return dist.get_rank(group) if _is_initialized() else 0


def global_ranks(ranks: Iterable[int], group: Group = None) -> tuple[int, ...]:
    """Return the ranks among all processes for ranks of a group."""
    return tuple(ranks) if group is None else tuple(dist.get_global_rank(group, each) for each in ranks)


def is_in_group(group: object) -> bool:
    """Return whether this process is in a group; new_group returns a non-group to other processes."""
    return group is None or (isinstance(group, dist.ProcessGroup) and dist.get_rank(group) >= 0)


def broadcast_bytes(
    message: Tensor | None, *, device: torch.device | None = None, source: int = 0, group: Group = None
) -> Tensor:
    """Return one rank's message on every rank; the receivers need not know its length.

    Args:
        message: uint8 [n] on the rank ``source``, None elsewhere.
        device: Device of the result; None = CPU.
        source: Rank that sends.
        group: Ranks that take part.

    Returns:
        uint8 [n] on `device`.
    """
    device = device or torch.device("cpu")
    assert (message is not None) == (rank(group) == source), f"only rank {source} passes a message, {rank(group)=}"
    if message is not None:
        assert (message.dtype, message.ndim) == (torch.uint8, 1), f"{message.dtype=} {message.shape=}"
    if world_size(group) == 1:
        assert message is not None
        return message.to(device)
    wire = wire_device(device, group)
    length = torch.tensor([0 if message is None else message.numel()], dtype=torch.int64, device=wire)
    dist.broadcast(length, group=group, group_src=source)
    on_wire = torch.empty(int(length), dtype=torch.uint8, device=wire) if message is None else message.to(wire)
    if on_wire.numel():
        dist.broadcast(on_wire.contiguous(), group=group, group_src=source)
    return on_wire.to(device)


def gather_bytes(message: bytes, group: Group = None) -> list[bytes]:
    """Return every rank's message, by rank, on every rank. Lengths may differ."""
    num_ranks = world_size(group)
    if num_ranks == 1:
        return [message]
    lengths = gather_rows(torch.tensor([len(message)]), group).reshape(-1).tolist()
    padded = torch.zeros(max(lengths), dtype=torch.uint8)
    if not padded.numel():
        return [b""] * num_ranks
    padded[: len(message)] = bytes_to_tensor(message)
    rows = gather_rows(padded, group)
    return [tensor_to_bytes(row[:length]) for row, length in zip(rows, lengths, strict=True)]


def gather_rows(row: Tensor, group: Group = None) -> Tensor:
    """Return every rank's row, by rank, on every rank: one message and one copy from the device.

    Args:
        row: [n] on the CPU, the same n and dtype on every rank.
        group: Ranks that take part.

    Returns:
        [world size, n] on the CPU.
    """
    num_ranks = world_size(group)
    if num_ranks == 1:
        return row.unsqueeze(0)
    on_wire = row.to(wire_device(row.device, group))
    rows = on_wire.new_empty(num_ranks * row.numel())
    dist.all_gather_into_tensor(rows, on_wire, group)
    return rows.cpu().view(num_ranks, -1)


def bytes_to_tensor(data: bytes) -> Tensor:
    """Copy bytes into a uint8 [n] tensor on the CPU."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def tensor_to_bytes(tensor: Tensor) -> bytes:
    """Copy a uint8 [n] tensor of any device into bytes."""
    assert tensor.dtype == torch.uint8, f"{tensor.dtype=}"
    return tensor.cpu().numpy().tobytes()


def wire_device(device: torch.device, group: Group = None) -> torch.device:
    """Return the device from which a tensor of `device` can be sent: nccl needs GPU tensors, gloo takes all."""
    if dist.get_backend(group) == "nccl" and device.type != "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()
