"""Broadcast of a stage: each rank decides about its share of the tensors, and sends that, compactly, to every rank.

A decision is which weights freeze, and to which codes. A message (written by `encode`, read by `decode`):

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
from inq_ray.core.owners import shown
from inq_ray.core.packing import indices, pack_codes, packed_size, unpack_codes
from inq_ray.core.stage import StageUpdate
from inq_ray.core.state import TensorState
from inq_ray.distributed.agreement import check_equal
from inq_ray.distributed.wire import (
    Group,
    broadcast_bytes,
    bytes_to_tensor,
    global_ranks,
    rank,
    tensor_to_bytes,
    world_size,
)

_LENGTH_BYTES = 4
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


class StageError(RuntimeError):
    """A rank could not decide a stage; raised on every rank at once.

    Attributes:
        stage: Stage, as the caller counts.
        message: The rank's error, which names the tensor.
        rank: The rank among all processes; None if there is one.
    """

    def __init__(self, stage: int, message: str, rank: int | None = None) -> None:
        self.stage = stage
        self.message = message
        self.rank = rank
        super().__init__(f"stage {stage}: {message}" + ("" if rank is None else f" (rank {rank})"))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.stage, self.message, self.rank)


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


def deal(costs: Mapping[str, int], num_ranks: int) -> dict[str, int]:
    """Return a rank for each tensor: the most expensive tensors first, each to the rank with the least to do.

    Args:
        costs: Cost of each tensor by name, in the same order on every rank.
        num_ranks: Number of ranks.

    Examples:
        >>> deal({"a": 1, "b": 5, "c": 3, "d": 1}, 2)
        {'b': 0, 'c': 1, 'a': 1, 'd': 1}
    """
    loads, ranks = [0] * num_ranks, {}
    for name in sorted(costs, key=lambda name: -costs[name]):
        ranks[name] = loads.index(min(loads))
        loads[ranks[name]] += costs[name]
    return ranks


def error_in_words(error: Exception, name: str = "") -> str:
    """Return an error for all ranks: a ValueError explains itself, others (memory, device) need their type and a name.

    Args:
        error: The error.
        name: The tensor that it is about; "" if there is none.
    """
    if isinstance(error, ValueError):
        return str(error)
    where = f"{shown(name)}: " if name else ""
    return f"{where}{type(error).__name__}: {error}"


def broadcast_stage(
    updates: Mapping[str, StageUpdate] | None,
    states: Mapping[str, TensorState],
    error: str | None = None,
    *,
    stage: int,
    group: Group = None,
) -> dict[str, StageUpdate]:
    """Return the updates of all ranks on every rank. Every rank calls it, once per stage; nothing is applied here.

    Args:
        updates: This rank's decisions, by parameter name; no tensor is another rank's too. None = none.
        states: States before the stage, the same on every rank.
        error: Why this rank could not decide; else None.
        stage: Stage for messages.
        group: Ranks that take part.

    Returns:
        The updates, in the order of the states, on the devices of the states' masks.

    Raises:
        StageError: A rank failed; raised on every rank with the error of the first one that did.
        ReplicaMismatchError: Tensors or their numbers of frozen weights differ between ranks; raised on every rank.
    """
    assert updates is None or error is None, "a rank passes either updates or an error"
    if world_size(group) == 1:
        if error is not None:
            raise StageError(stage, error)
        return dict(updates or {})
    progress = {name: f"{list(s.frozen.shape)} {s.num_frozen} {s.codebook.num_bits}" for name, s in states.items()}
    check_equal(progress, stage=stage, what="numbers of frozen weights before the stage", group=group)
    own = encode(updates, states, error, stage=stage)
    received: dict[str, StageUpdate] = {}
    for source in range(world_size(group)):
        message = broadcast_bytes(own if source == rank(group) else None, source=source, group=group)
        # A rank decodes its own message, and raises its own error, so that all ranks take the same path.
        decoded = decode(message, states, source=global_ranks([source], group)[0])
        assert not decoded.keys() & received.keys(), "two ranks decided about a tensor"
        received |= decoded
    return {name: received[name] for name in states if name in received}


def encode(
    updates: Mapping[str, StageUpdate] | None, states: Mapping[str, TensorState], error: str | None, *, stage: int
) -> Tensor:
    """Return the message, uint8 [n] on the CPU, with the decision or the error."""
    updates = updates or {}
    assert updates.keys() <= states.keys(), f"updates of unknown tensors: {sorted(updates.keys() - states.keys())}"
    entries: list[_Entry] = []
    parts: list[Tensor] = []
    for name, update in updates.items():
        state, newly = states[name], update.newly_frozen.reshape(-1)
        codes = update.codes.reshape(-1).index_select(0, indices(newly))
        live = indices(~state.frozen) if state.num_frozen else None  # None = all
        chosen = _of(newly, live)
        if 0 < codes.numel() < chosen.numel():
            parts.append(pack_codes(chosen, 1).cpu())
        codebook = update.codebook
        parts.append(pack_codes(codes, codebook.num_bits).cpu())
        dtype = None
        if update.moved is not None:
            dtype = str(update.moved.dtype).removeprefix("torch.")
            stays_live = _among(live, ~chosen)
            parts.append(update.moved.reshape(-1).index_select(0, stays_live).cpu().view(torch.uint8))
        entries.append(_Entry(name, codebook.num_bits, codebook.n_1, codebook.levels, codes.numel(), dtype))
    header = json.dumps({"stage": stage, "error": error, "tensors": entries}, separators=(",", ":")).encode()
    return torch.cat([bytes_to_tensor(len(header).to_bytes(_LENGTH_BYTES, "little") + header), *parts])


def decode(message: Tensor, states: Mapping[str, TensorState], *, source: int | None = None) -> dict[str, StageUpdate]:
    """Decode a message of `encode`, with the same states.

    Args:
        message: uint8 [n] on the CPU.
        states: States as they were when the message was encoded.
        source: The rank that sent it, for errors.

    Raises:
        StageError: That rank could not decide.
    """
    length = int.from_bytes(tensor_to_bytes(message[:_LENGTH_BYTES]), "little")
    header = json.loads(tensor_to_bytes(message[_LENGTH_BYTES : _LENGTH_BYTES + length]))
    if header["error"] is not None:
        raise StageError(header["stage"], header["error"], source)
    payload = message[_LENGTH_BYTES + length :]
    updates: dict[str, StageUpdate] = {}
    for entry in (_Entry(*line) for line in header["tensors"]):
        updates[entry.name], payload = _decode_tensor(entry, payload, states[entry.name])
    assert not payload.numel(), f"{payload.numel()} bytes too many"
    return updates


def _decode_tensor(entry: _Entry, payload: Tensor, state: TensorState) -> tuple[StageUpdate, Tensor]:
    """Return one tensor's update, and the rest of the payload."""
    frozen, device = state.frozen, state.frozen.device
    num_frozen = state.num_frozen
    live, num_live = (indices(~frozen) if num_frozen else None), frozen.numel() - num_frozen
    chosen = torch.full((num_live,), entry.num_newly > 0, device=device)  # if all live weights freeze now, or none does
    if 0 < entry.num_newly < num_live:
        packed, payload = _take(payload, num_live, 1)
        chosen = unpack_codes(packed.to(device), 1, num_live).view(torch.bool)
    newly = _among(live, chosen)
    packed, payload = _take(payload, entry.num_newly, entry.num_bits)
    unpacked = unpack_codes(packed.to(device), entry.num_bits, entry.num_newly)
    if live is None:
        newly_frozen = chosen
    else:
        newly_frozen = torch.zeros(frozen.numel(), dtype=torch.bool, device=device).index_fill_(0, newly, True)
    codes = torch.zeros(frozen.numel(), dtype=torch.uint8, device=device).index_copy_(0, newly, unpacked)
    moved = None
    if entry.moved is not None:
        moved = torch.zeros(frozen.numel(), dtype=_DTYPES[entry.moved], device=device)
        values, payload = _take(payload, (num_live - entry.num_newly) * moved.element_size(), 8)
        stays_live = _among(live, ~chosen)
        moved = moved.index_copy_(0, stays_live, values.clone().view(moved.dtype).to(device)).view(frozen.shape)
    update = StageUpdate(entry.codebook, newly_frozen.view(frozen.shape), codes.view(frozen.shape), moved)
    return update, payload


def _of(values: Tensor, positions: Tensor | None) -> Tensor:
    """Return the values at these positions, None = all."""
    return values if positions is None else values.index_select(0, positions)


def _among(positions: Tensor | None, chosen: Tensor) -> Tensor:
    """Return the chosen ones (bool [n]) of n positions, None = 0 to n - 1."""
    among = indices(chosen)
    return among if positions is None else positions.index_select(0, among)


def _take(payload: Tensor, count: int, num_bits: int) -> tuple[Tensor, Tensor]:
    num_bytes = packed_size(num_bits, count)
    assert num_bytes <= payload.numel(), f"the message ends {num_bytes - payload.numel()} bytes too early"
    return payload[:num_bytes], payload[num_bytes:]
