"""Tensors of a stored checkpoint: read and expanded a piece at a time, so that it is never in memory as a whole.

A checkpoint's file is read in blocks: by one process or, through :mod:`inq_ray.training.checkpoint.broadcast`, by all
ranks, which then read the same pieces in the same order. A tensor's mask and codes come first: its live weights,
momentum and averages need them to find their positions. :mod:`inq_ray.training.checkpoint.compact` describes how they
are stored.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from inq_ray.core.channels import AnyCodebook, ChannelCodebook
from inq_ray.core.codebook import float_format
from inq_ray.core.packing import indices, packed_size, unpack_codes
from inq_ray.safetensors_file import decode_header
from inq_ray.training.checkpoint.compact import at_frozen
from inq_ray.training.checkpoint.facts import Facts, TensorFacts
from inq_ray.training.checkpoint.snapshot import CODES, FROZEN, LIVE_KINDS, MODEL, Snapshot, kind_and_name

# Bytes read, and sent to other ranks, at a time: a link of 10 Gbit/s takes 13 ms for them, so a message's latency is
# small against it, and a network whose resuming takes noticeable memory is many times as large.
BLOCK_BYTES = 2**24
# Weights expanded at a time, a multiple of 8: their positions (int64) and codes take about as much as a block.
_PIECE = 2**20


class Blocks(Protocol):
    """A file in blocks of equal size; the last may be shorter."""

    @property
    def num_bytes(self) -> int:
        """Size of the file."""

    @property
    def block_bytes(self) -> int:
        """Size of a block."""

    def read(self, index: int) -> Tensor:
        """Return a block: uint8 [n] on the CPU.

        Raises:
            ValueError: It cannot be read, or has changed.
        """


class Masks(NamedTuple):
    """Mask (bool) and codes (uint8) of a weight tensor, in its shape, contiguous."""

    frozen: Tensor
    codes: Tensor


class StoredTensors(Mapping[str, Tensor]):
    """Expanded tensors by kind and name, contiguous, on the CPU; each access reads.

    Args:
        blocks: A safetensors file of compact tensors; its header is read at once.
        quantized: Quantized tensors, as stored.

    Attributes:
        blocks: As above.
        quantized: As above.
        layout: Shapes and dtypes of the expanded tensors, as tensors without values.

    Raises:
        ValueError: It is not such a file, or its tensors are not as :func:`compact` makes them; names the tensor.
    """

    def __init__(self, blocks: Blocks, quantized: Mapping[str, TensorFacts]) -> None:
        self.blocks = blocks
        self.quantized = dict(quantized)
        self._reader = _Reader(blocks)
        self._entries = decode_header(self._reader.read_bytes, blocks.num_bytes)
        self.layout = self._expanded()

    def __getitem__(self, name: str) -> Tensor:
        like = self.layout[name]
        kind, of_kind = kind_and_name(name)
        if of_kind in self.quantized and kind in (FROZEN, CODES):
            frozen, codes = self.masks([of_kind])[of_kind]
            return frozen if kind == FROZEN else codes
        tensor = torch.empty(like.shape, dtype=like.dtype)
        self.copy_to({name: tensor}, {})
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def masks(self, names: Iterable[str]) -> dict[str, Masks]:
        """Return masks and codes of quantized tensors, by name.

        Raises:
            ValueError: A mask has another number of frozen weights than the facts; names the tensor.
        """
        names = list(names)
        frozen = {name: self._frozen(name) for name in self._in_order(names, FROZEN)}
        codes = {name: self._codes(name, frozen[name]) for name in self._in_order(names, CODES)}
        shapes = {name: self.quantized[name].shape for name in names}
        return {name: Masks(frozen[name].view(shapes[name]), codes[name].view(shapes[name])) for name in names}

    def copy_to(self, destinations: Mapping[str, Tensor], masks: Mapping[str, Masks]) -> None:
        """Overwrite tensors, in place, in the order of the file.

        Args:
            destinations: Tensors by kind and name, of the layout's shapes and dtypes, of any device and memory format;
                no masks and codes.
            masks: Masks and codes by tensor name, on any device; those that are missing are read.
        """
        with torch.no_grad():
            for name in self._in_order(destinations):
                assert destinations[name].dtype == self.layout[name].dtype, name
                kind, of_kind = kind_and_name(name)
                entry = self.quantized.get(of_kind)
                if entry is None or kind not in entry.live_only:
                    self._copy_plain(name, destinations[name])
                else:
                    known = masks.get(of_kind) or self.masks([of_kind])[of_kind]
                    self._copy_live(name, destinations[name], entry.codebook, known)

    def _in_order(self, names: Iterable[str], kind: str = "") -> list[str]:
        """Return names in the order in which the file has their tensors of a kind."""
        return sorted(names, key=lambda name: (self._start(kind + name), name))

    def _start(self, name: str) -> int:
        return self._entries[name].start if name in self._entries else 0

    def _copy_plain(self, name: str, destination: Tensor) -> None:
        done = 0
        for rows in _rows(destination):
            values = self._values(name, done, rows.numel(), destination.dtype)
            rows.copy_(values.view(rows.shape))
            done += rows.numel()

    def _copy_live(self, name: str, destination: Tensor, codebook: AnyCodebook, masks: Masks) -> None:
        (kind, _), done, first = kind_and_name(name), 0, 0
        for rows in _rows(destination):
            part = slice(first, first + len(rows))
            alive = indices(~_as_rows(masks.frozen)[part].cpu())
            levels = at_frozen(kind, _of_rows(codebook, part), _as_rows(masks.codes)[part].cpu(), destination.dtype)
            live = self._values(name, done, len(alive), destination.dtype)
            rows.copy_(levels.index_copy_(0, alive, live).view(rows.shape))
            done, first = done + len(alive), part.stop

    def _read(self, name: str, start: int, stop: int) -> Tensor:
        """Return some bytes of a compact tensor: uint8 [n]."""
        begin = self._entries[name].start
        return self._reader.read(begin + start, begin + stop)

    def _values(self, name: str, first: int, count: int, dtype: torch.dtype) -> Tensor:
        """Return some values of a compact tensor, flat."""
        size = dtype.itemsize
        data = self._read(name, first * size, (first + count) * size)
        is_aligned = data.storage_offset() % size == 0
        return (data if is_aligned else data.clone()).view(dtype)

    def _frozen(self, name: str) -> Tensor:
        """Return a mask, flat."""
        entry = self.quantized[name]
        count, num_frozen = math.prod(entry.shape), entry.num_frozen
        flat = torch.full((count,), num_frozen > 0)
        if 0 < num_frozen < count:
            for first, piece in _pieces(flat):
                piece.copy_(self._unpacked(FROZEN + name, 1, first, len(piece)))
            found = int(torch.count_nonzero(flat))
            if found != num_frozen:
                raise ValueError(f"the checkpoint has {num_frozen} codes of {name} for {found} frozen weights")
        return flat

    def _codes(self, name: str, frozen: Tensor) -> Tensor:
        """Return codes, flat, of a flat mask."""
        codes, done = torch.zeros(len(frozen), dtype=torch.uint8), 0
        for first, piece in _pieces(codes):
            positions = indices(frozen[first : first + len(piece)])
            unpacked = self._unpacked(CODES + name, self.quantized[name].num_bits, done, len(positions))
            piece.index_copy_(0, positions, unpacked)
            done += len(positions)
        return codes

    def _unpacked(self, name: str, num_bits: int, first: int, count: int) -> Tensor:
        """Return some codes of a compact tensor: uint8 [count]. Eight of them begin at a whole byte."""
        if not count:
            return torch.empty(0, dtype=torch.uint8)
        skipped = first % 8
        start = (first - skipped) // 8 * num_bits
        packed = self._read(name, start, start + packed_size(num_bits, skipped + count))
        return unpack_codes(packed, num_bits, skipped + count)[skipped:]

    def _expanded(self) -> dict[str, Tensor]:
        """Return shapes and dtypes; nothing is allocated by the facts alone."""
        layout = {name: _like(entry.shape, entry.dtype) for name, entry in self._entries.items()}
        for name, entry in self.quantized.items():
            shape, num_frozen, live_only = entry.shape, entry.num_frozen, entry.live_only
            if len(set(live_only)) < len(live_only) or set(live_only) - set(LIVE_KINDS):
                raise ValueError(f"the checkpoint has only live values of {live_only!r:.80} of {name}")
            count = math.prod(shape)
            _check_size(layout, MODEL + name, (count - num_frozen,) if MODEL in live_only else shape)
            if num_frozen:
                _check_packed(layout, CODES + name, packed_size(entry.num_bits, num_frozen))
            if 0 < num_frozen < count:
                _check_packed(layout, FROZEN + name, packed_size(1, count))
            for kind in live_only:
                _check_size(layout, kind + name, (count - num_frozen,))
                dtype = layout[kind + name].dtype
                float_format(dtype)
                layout[kind + name] = _like(shape, dtype)
            codebook = entry.codebook
            if isinstance(codebook, ChannelCodebook) and shape[:1] != (len(codebook.channels),):
                raise ValueError(f"the checkpoint has {len(codebook.channels)} levels of {name} in shape {list(shape)}")
            layout[FROZEN + name], layout[CODES + name] = _like(shape, torch.bool), _like(shape, torch.uint8)
        return layout


def stored_snapshot(blocks: Blocks, facts: Facts) -> Snapshot:
    """Return a snapshot whose tensors are read when they are used.

    Args:
        blocks: File of the compact tensors.
        facts: Facts of the compact snapshot.

    Raises:
        ValueError: See :class:`StoredTensors`.
    """
    tensors = StoredTensors(blocks, facts.quantized)
    expanded = {name: TensorFacts.of(entry.codebook) for name, entry in facts.quantized.items()}
    return Snapshot(tensors, facts.with_quantized(expanded))


def whole(snapshot: Snapshot) -> dict[str, Tensor]:
    """Return all tensors of a snapshot, in memory; stored ones are read in the order of their file."""
    layout, masks = layout_of(snapshot), masks_of(snapshot)
    tensors = {FROZEN + name: each.frozen for name, each in masks.items()}
    tensors |= {CODES + name: each.codes for name, each in masks.items()}
    others = {name: torch.empty(like.shape, dtype=like.dtype) for name, like in layout.items() if name not in tensors}
    copy_to(snapshot, others, masks)
    return others | tensors


def layout_of(snapshot: Snapshot) -> Mapping[str, Tensor]:
    """Return a snapshot's tensors, maybe without values, for their shapes and dtypes."""
    tensors = snapshot.tensors
    return tensors.layout if isinstance(tensors, StoredTensors) else tensors


def masks_of(snapshot: Snapshot) -> dict[str, Masks]:
    """Return masks and codes of a snapshot's quantized tensors, by name."""
    tensors = snapshot.tensors
    if isinstance(tensors, StoredTensors):
        return tensors.masks(tensors.quantized)
    return {name: Masks(tensors[FROZEN + name], tensors[CODES + name]) for name in snapshot.facts.quantized}


def copy_to(snapshot: Snapshot, destinations: Mapping[str, Tensor], masks: Mapping[str, Masks]) -> None:
    """Overwrite tensors with those of a snapshot, in place, see :meth:`StoredTensors.copy_to`."""
    if isinstance(snapshot.tensors, StoredTensors):
        snapshot.tensors.copy_to(destinations, masks)
        return
    with torch.no_grad():
        for name, tensor in destinations.items():
            tensor.copy_(snapshot.tensors[name])


class _Reader:
    """Bytes at any position of a file in blocks; remembers the last block."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._index, self._block = -1, torch.empty(0, dtype=torch.uint8)

    def read(self, start: int, stop: int) -> Tensor:
        """Return bytes from `start` to before `stop`: uint8 [n], which may be a view of a block."""
        size, parts = self._blocks.block_bytes, []
        while start < stop:
            index, offset = divmod(start, size)
            if index != self._index:
                self._index, self._block = index, self._blocks.read(index)
            parts.append(self._block[offset : offset + stop - start])
            start += len(parts[-1])
        return parts[0] if len(parts) == 1 else torch.cat([torch.empty(0, dtype=torch.uint8), *parts])

    def read_bytes(self, start: int, stop: int) -> bytes:
        """Return bytes from `start` to before `stop`."""
        return self.read(start, stop).numpy().tobytes()


def _rows(tensor: Tensor) -> Iterator[Tensor]:
    """Yield views of some rows each, as many as have _PIECE weights; one if a row has more."""
    tensor = _as_rows(tensor)
    if tensor.numel():
        yield from torch.split(tensor, max(1, _PIECE * len(tensor) // tensor.numel()))


def _as_rows(tensor: Tensor) -> Tensor:
    """Return a tensor with at least one dimension."""
    return tensor if tensor.dim() else tensor.view(1)


def _pieces(flat: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the first position and the weights of each piece."""
    for first in range(0, len(flat), _PIECE):
        yield first, flat[first : first + _PIECE]


def _of_rows(codebook: AnyCodebook, rows: slice) -> AnyCodebook:
    return ChannelCodebook(codebook.channels[rows]) if isinstance(codebook, ChannelCodebook) else codebook


def _like(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _check_size(layout: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> None:
    if name not in layout:
        raise ValueError(f"the checkpoint lacks {name}")
    if layout[name].shape != shape:
        raise ValueError(f"the checkpoint has {name} in shape {list(layout[name].shape)}, expected {list(shape)}")


def _check_packed(layout: Mapping[str, Tensor], name: str, num_bytes: int) -> None:
    if name not in layout:
        raise ValueError(f"the checkpoint lacks {name}")
    tensor = layout[name]
    if (tensor.dtype, tensor.numel()) != (torch.uint8, num_bytes):
        raise ValueError(f"the checkpoint has {tensor.numel()} of {tensor.dtype} as {name}, expected {num_bytes} bytes")
