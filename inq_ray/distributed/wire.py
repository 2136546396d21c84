"""Rank, world size, and bytes between ranks.

Only bytes and counts are sent, and nothing is pickled. Works with gloo and nccl; without a process group, or with one
rank, every function returns its argument.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of ranks; 1 if torch.distributed is not initialized."""
    return dist.get_world_size() if _is_initialized() else 1


def rank() -> int:
    """Return this process's rank, 0 <= rank < world_size(); 0 if torch.distributed is not initialized."""
    return dist.get_rank() if _is_initialized() else 0


def broadcast_bytes(message: Tensor | None, *, device: torch.device | None = None) -> Tensor:
    """Return rank 0's message on every rank; the receivers need not know its length.

    Args:
        message: uint8 [n] on rank 0, None elsewhere.
        device: Device of the result; None = CPU.

    Returns:
        uint8 [n] on `device`.
    """
    device = device or torch.device("cpu")
    assert (message is not None) == (rank() == 0), f"only rank 0 passes a message, {rank()=}"
    if message is not None:
        assert (message.dtype, message.ndim) == (torch.uint8, 1), f"{message.dtype=} {message.shape=}"
    if world_size() == 1:
        assert message is not None
        return message.to(device)
    wire = wire_device(device)
    length = torch.tensor([0 if message is None else message.numel()], dtype=torch.int64, device=wire)
    dist.broadcast(length, src=0)
    on_wire = torch.empty(int(length), dtype=torch.uint8, device=wire) if message is None else message.to(wire)
    if on_wire.numel():
        dist.broadcast(on_wire.contiguous(), src=0)
    return on_wire.to(device)


def gather_bytes(message: bytes) -> list[bytes]:
    """Return every rank's message, by rank, on every rank. Lengths may differ."""
    if world_size() == 1:
        return [message]
    wire = wire_device(torch.device("cpu"))
    lengths = [int(length) for length in _all_gather(torch.tensor([len(message)], dtype=torch.int64, device=wire))]
    padded = torch.zeros(max(lengths), dtype=torch.uint8, device=wire)
    if not padded.numel():
        return [b""] * world_size()
    padded[: len(message)] = bytes_to_tensor(message).to(wire)
    return [tensor_to_bytes(row[:length]) for row, length in zip(_all_gather(padded), lengths, strict=True)]


def bytes_to_tensor(data: bytes) -> Tensor:
    """Copy bytes into a uint8 [n] tensor on the CPU."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def tensor_to_bytes(tensor: Tensor) -> bytes:
    """Copy a uint8 [n] tensor of any device into bytes."""
    assert tensor.dtype == torch.uint8, f"{tensor.dtype=}"
    return tensor.cpu().numpy().tobytes()


def wire_device(device: torch.device) -> torch.device:
    """Return the device from which a tensor of `device` can be sent: nccl needs GPU tensors, gloo takes all."""
    if dist.get_backend() == "nccl" and device.type != "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def _all_gather(tensor: Tensor) -> list[Tensor]:
    gathered = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(gathered, tensor)
    return gathered
