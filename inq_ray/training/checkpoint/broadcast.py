"""Broadcast of a checkpoint: rank 0 reads it a block at a time, and every rank gets the same bytes."""

import json

import torch
from torch import Tensor

from inq_ray.distributed.replica import of_rank_0
from inq_ray.distributed.wire import broadcast_bytes, bytes_to_tensor, rank, tensor_to_bytes, world_size
from inq_ray.training.checkpoint.facts import Facts
from inq_ray.training.checkpoint.snapshot import Snapshot
from inq_ray.training.checkpoint.stored import Blocks, StoredTensors, stored_snapshot


class SharedBlocks:
    """Blocks that rank 0 reads; every rank asks for the same ones in the same order.

    Args:
        own: Rank 0's blocks; None elsewhere.
        num_bytes: Size of the file.
        block_bytes: Size of a block.
    """

    def __init__(self, own: Blocks | None, num_bytes: int, block_bytes: int) -> None:
        assert (own is not None) == (rank() == 0), "only rank 0 reads checkpoints"
        self.num_bytes, self.block_bytes = num_bytes, block_bytes
        self._own = own

    def read(self, index: int) -> Tensor:
        """Return a block: uint8 [n] on the CPU.

        Raises:
            ValueError: Rank 0 cannot read it; raised on every rank.
        """
        size = min(self.block_bytes, self.num_bytes - index * self.block_bytes)
        message, error = torch.zeros(size + 1, dtype=torch.uint8), ""  # the last byte: whether there is an error
        if self._own is not None:
            try:
                message[:size] = self._own.read(index)
            except ValueError as failure:
                error, message[size] = str(failure), 1
        message = of_rank_0(message)
        if message[size]:
            reason = tensor_to_bytes(broadcast_bytes(bytes_to_tensor(error.encode()) if rank() == 0 else None))
            raise ValueError(f"rank 0 cannot read the checkpoint: {reason.decode()}")
        return message[:size]


def broadcast_snapshot(snapshot: Snapshot | None, error: str | None = None) -> Snapshot | None:
    """Return rank 0's snapshot on every rank; every rank calls it, and uses its tensors as all others do.

    Args:
        snapshot: On rank 0, a stored one, or None if the run starts at its beginning; None elsewhere.
        error: On rank 0, why it has none.

    Raises:
        ValueError: Rank 0 has an error; raised on every rank.
    """
    assert rank() == 0 or (snapshot is None and error is None), "only rank 0 reads checkpoints"
    if world_size() == 1:
        if error is not None:
            raise ValueError(error)
        return snapshot
    own = None
    if snapshot is not None:
        assert isinstance(snapshot.tensors, StoredTensors)
        own = snapshot.tensors.blocks
    values = json.loads(tensor_to_bytes(broadcast_bytes(_encode(snapshot, error) if rank() == 0 else None)))
    if values["error"] is not None:
        raise ValueError(values["error"])
    if values["facts"] is None:
        return None
    shared = SharedBlocks(own, values["num_bytes"], values["block_bytes"])
    return stored_snapshot(shared, Facts.from_json(values["facts"]))


def _encode(snapshot: Snapshot | None, error: str | None) -> Tensor:
    """Return the facts of a stored snapshot, or the error: uint8 [n]."""
    values: dict[str, object] = {"error": error, "facts": None}
    if snapshot is not None:
        assert isinstance(snapshot.tensors, StoredTensors)
        blocks, quantized = snapshot.tensors.blocks, snapshot.tensors.quantized
        values["facts"] = snapshot.facts.with_quantized(quantized).to_json()
        values |= {"num_bytes": blocks.num_bytes, "block_bytes": blocks.block_bytes}
    return bytes_to_tensor(json.dumps(values).encode())
