"""Broadcast of a stage: rank 0 decides which weights freeze, and to which codes; every rank receives it, compactly.

The message (written by `encode`, read by `decode`):

    uint32     length of the header, little endian
    header     JSON: stage, error, and for each tensor [name, num_bits, n_1, levels, number of newly frozen weights,
               dtype of the live weights that change, null if none does]
    payload    for each tensor, each part beginning at a whole byte, weights in row-major order:
                   1 bit per weight that was live before: whether it freezes now. Omitted if all or none do
                   num_bits bits per newly frozen weight: its code
                   if live weights change to compensate: the bytes of each live weight

If a stage freezes half of the live weights, as the paper's portions .5, .75, .875 do, this is (num_bits + 2) / 8 bytes
per newly frozen weight; num_bits / 8 in the last stage, which freezes all that are left.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inq_ray.core.channels import AnyCodebook, codebook_of
from inq_ray.core.codebook import Levels
from inq_ray.core.packing import indices, pack_codes, packed_size, unpack_codes
from inq_ray.core.stage import StageUpdate
from inq_ray.core.state import TensorState
from inq_ray.distributed.agreement import check_equal
from inq_ray.distributed.wire import Group, broadcast_bytes, bytes_to_tensor, rank, tensor_to_bytes, world_size

_LENGTH_BYTES = 4
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


class StageError(RuntimeError):
    """Rank 0 could not decide a stage; raised on every rank at once.

    Attributes:
        stage: Stage, as the caller counts.
        message: Rank 0's error, which names the tensor.
    """

    def __init__(self, stage: int, message: str) -> None:
        self.stage = stage
        self.message = message
        super().__init__(f"stage {stage}: {message}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.stage, self.message)


class _Entry(NamedTuple):
    """A tensor's entry in the header."""

    name: str
    num_bits: int
    n_1: int | Sequence[int | None] | None
    levels: Levels
    num_newly: int
    moved: str | None

    @property
    def codebook(self) -> AnyCodebook:
        """Levels of the tensor."""
        return codebook_of(self.num_bits, self.n_1, self.levels)


def broadcast_stage(
    updates: Mapping[str, StageUpdate] | None,
    states: Mapping[str, TensorState],
    error: str | None = None,
    *,
    stage: int,
    group: Group = None,
) -> dict[str, StageUpdate]:
    """Return rank 0's updates on every rank. Every rank calls it, once per stage; nothing is applied here.

    Args:
        updates: Rank 0's decisions, by parameter name; None on the other ranks, and if rank 0 failed.
        states: States before the stage, the same on every rank.
        error: On rank 0, why it could not decide; else None.
        stage: Stage for messages.
        group: Ranks that take part.

    Returns:
        The updates, on the devices of the states' masks.

    Raises:
        StageError: Rank 0 failed; raised on every rank with rank 0's error.
        ReplicaMismatchError: Tensors or their numbers of frozen weights differ between ranks; raised on every rank.
    """
    own_rank = rank(group)
    assert own_rank == 0 or (updates is None and error is None), "only rank 0 decides"
    assert own_rank != 0 or (updates is None) == (error is not None), "rank 0 passes either updates or an error"
    if world_size(group) == 1:
        if error is not None:
            raise StageError(stage, error)
        assert updates is not None
        return dict(updates)
    progress = {name: f"{list(s.frozen.shape)} {s.num_frozen} {s.codebook.num_bits}" for name, s in states.items()}
    check_equal(progress, stage=stage, what="numbers of frozen weights before the stage", group=group)
    message = encode(updates, states, error, stage=stage) if own_rank == 0 else None
    received = broadcast_bytes(message, group=group)
    # Rank 0 decodes its own message, and raises its own error, so that all ranks take the same path.
    return decode(received, states)


def encode(
    updates: Mapping[str, StageUpdate] | None, states: Mapping[str, TensorState], error: str | None, *, stage: int
) -> Tensor:
    """Return the message, uint8 [n] on the CPU, with the decision or the error."""
    updates = updates or {}
    assert updates.keys() <= states.keys(), f"updates of unknown tensors: {sorted(updates.keys() - states.keys())}"
    entries: list[_Entry] = []
    parts: list[Tensor] = []
    for name, update in updates.items():
        live, newly = indices(~states[name].frozen), update.newly_frozen.reshape(-1)
        codes = update.codes.reshape(-1).index_select(0, indices(newly))
        chosen = newly.index_select(0, live)
        if 0 < codes.numel() < live.numel():
            parts.append(pack_codes(chosen, 1).cpu())
        codebook = update.codebook
        parts.append(pack_codes(codes, codebook.num_bits).cpu())
        dtype = None
        if update.moved is not None:
            dtype = str(update.moved.dtype).removeprefix("torch.")
            stays_live = live.index_select(0, indices(~chosen))
            parts.append(update.moved.reshape(-1).index_select(0, stays_live).cpu().view(torch.uint8))
        entries.append(_Entry(name, codebook.num_bits, codebook.n_1, codebook.levels, codes.numel(), dtype))
    header = json.dumps({"stage": stage, "error": error, "tensors": entries}, separators=(",", ":")).encode()
    return torch.cat([bytes_to_tensor(len(header).to_bytes(_LENGTH_BYTES, "little") + header), *parts])


def decode(message: Tensor, states: Mapping[str, TensorState]) -> dict[str, StageUpdate]:
    """Decode a message of `encode`, with the same states.

    Args:
        message: uint8 [n] on the CPU.
        states: States as they were when the message was encoded.

    Raises:
        StageError: Rank 0 could not decide.
    """
    length = int.from_bytes(tensor_to_bytes(message[:_LENGTH_BYTES]), "little")
    header = json.loads(tensor_to_bytes(message[_LENGTH_BYTES : _LENGTH_BYTES + length]))
    if header["error"] is not None:
        raise StageError(header["stage"], header["error"])
    payload = message[_LENGTH_BYTES + length :]
    updates: dict[str, StageUpdate] = {}
    for entry in (_Entry(*line) for line in header["tensors"]):
        updates[entry.name], payload = _decode_tensor(entry, payload, states[entry.name].frozen)
    assert not payload.numel(), f"{payload.numel()} bytes too many"
    return updates


def _decode_tensor(entry: _Entry, payload: Tensor, frozen: Tensor) -> tuple[StageUpdate, Tensor]:
    """Return one tensor's update, and the rest of the payload."""
    device, live = frozen.device, indices(~frozen)
    chosen = torch.full(live.shape, entry.num_newly > 0, device=device)  # if all live weights freeze now, or none does
    if 0 < entry.num_newly < live.numel():
        packed, payload = _take(payload, live.numel(), 1)
        chosen = unpack_codes(packed.to(device), 1, live.numel()).view(torch.bool)
    newly = live.index_select(0, indices(chosen))
    newly_frozen = torch.zeros(frozen.numel(), dtype=torch.bool, device=device).index_fill_(0, newly, True)
    packed, payload = _take(payload, entry.num_newly, entry.num_bits)
    codes = torch.zeros(frozen.numel(), dtype=torch.uint8, device=device)
    codes.index_copy_(0, newly, unpack_codes(packed.to(device), entry.num_bits, entry.num_newly))
    moved = None
    if entry.moved is not None:
        moved = torch.zeros(frozen.numel(), dtype=_DTYPES[entry.moved], device=device)
        count = (live.numel() - entry.num_newly) * moved.element_size()
        values, payload = _take(payload, count, 8)
        stays_live = live.index_select(0, indices(~chosen))
        moved = moved.index_copy_(0, stays_live, values.clone().view(moved.dtype).to(device)).view(frozen.shape)
    update = StageUpdate(entry.codebook, newly_frozen.view(frozen.shape), codes.view(frozen.shape), moved)
    return update, payload


def _take(payload: Tensor, count: int, num_bits: int) -> tuple[Tensor, Tensor]:
    num_bytes = packed_size(num_bits, count)
    assert num_bytes <= payload.numel(), f"the message ends {num_bytes - payload.numel()} bytes too early"
    return payload[:num_bytes], payload[num_bytes:]
