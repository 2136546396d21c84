"""Broadcast of a checkpoint: rank 0 reads it, and every rank gets the same bytes."""

import json

import safetensors.torch
from torch import Tensor

from inq_ray.distributed.wire import broadcast_bytes, bytes_to_tensor, rank, tensor_to_bytes, world_size
from inq_ray.training.checkpoint.compact import compact, expand
from inq_ray.training.checkpoint.facts import Facts
from inq_ray.training.checkpoint.snapshot import Snapshot

_LENGTH_BYTES = 8


def broadcast_snapshot(snapshot: Snapshot | None, error: str | None = None) -> Snapshot | None:
    """Return rank 0's snapshot on every rank; every rank calls it.

    Args:
        snapshot: On rank 0, expanded, or None if the run starts at its beginning; None elsewhere.
        error: On rank 0, why it has none.

    Raises:
        ValueError: Rank 0 has an error; raised on every rank.
    """
    assert rank() == 0 or (snapshot is None and error is None), "only rank 0 reads checkpoints"
    if world_size() > 1:
        snapshot, error = _decode(broadcast_bytes(_encode(snapshot, error) if rank() == 0 else None))
    if error is not None:
        raise ValueError(error)
    return snapshot


def _encode(snapshot: Snapshot | None, error: str | None) -> Tensor:
    """Return length of the facts, facts and tensors: uint8 [n]."""
    packed = None if snapshot is None else compact(snapshot)
    facts = json.dumps({"error": error, "facts": packed and packed.facts.to_json()}).encode()
    tensors = safetensors.torch.save(packed.tensors if packed else {})
    return bytes_to_tensor(len(facts).to_bytes(_LENGTH_BYTES, "little") + facts + tensors)


def _decode(message: Tensor) -> tuple[Snapshot | None, str | None]:
    length = int.from_bytes(tensor_to_bytes(message[:_LENGTH_BYTES]), "little")
    values = json.loads(tensor_to_bytes(message[_LENGTH_BYTES : _LENGTH_BYTES + length]))
    if values["facts"] is None:
        return None, values["error"]
    tensors = safetensors.torch.load(tensor_to_bytes(message[_LENGTH_BYTES + length :]))
    return expand(Snapshot(tensors, Facts.from_json(values["facts"]))), values["error"]
