"""What rank 0 has or does for all, and sums over ranks.

Tensors are sent as bytes, so any dtype works on any backend, including NaN payloads and signs of zero. Works with gloo
and nccl; a no-op without a process group or with one rank.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from inq_ray.distributed.agreement import check_equal
from inq_ray.distributed.wire import (
    Group,
    broadcast_bytes,
    bytes_to_tensor,
    rank,
    tensor_to_bytes,
    wire_device,
    world_size,
)

DEFAULT_BUCKET_BYTES = 25_000_000


def broadcast_tensors(
    tensors: Mapping[str, Tensor], *, bucket_bytes: int = DEFAULT_BUCKET_BYTES, group: Group = None
) -> None:
    """Overwrite every tensor, in place, with rank 0's bits.

    Args:
        tensors: Tensors by name; the same names, shapes and dtypes on every rank, in any order and memory format.
        bucket_bytes: Most bytes per flat bucket of tensors, which is also the extra memory needed (more only if one row
            of a tensor, its slice along axis 0, is larger).
        group: Ranks that take part.

    Raises:
        ReplicaMismatchError: Names, shapes or dtypes differ between ranks; raised on every rank.
    """
    if world_size(group) == 1:
        return
    layout = {name: f"{tensor.dtype} {list(tensor.shape)}" for name, tensor in tensors.items()}
    # Else ranks would wait for each other forever.
    check_equal(layout, stage=None, what="names, shapes or dtypes", group=group)
    with torch.no_grad():
        for bucket in _buckets(tensors, bucket_bytes):
            _broadcast_bucket(bucket, group)


def sum_counts(counts: Tensor, *, group: Group = None) -> Tensor:
    """Return the sum of `counts` over all ranks, on every rank, in a new tensor; int64 counts add up exactly.

    Args:
        counts: Any shape, the same on every rank; not changed.
        group: Ranks that take part; None = all ranks.
    """
    return _exchanged(counts, lambda on_wire: dist.all_reduce(on_wire, group=group), group=group)


def largest(values: Tensor) -> Tensor:
    """Return the elementwise maximum over all ranks, on every rank, in a new tensor.

    Args:
        values: Any shape, the same on every rank; not changed.
    """
    return _exchanged(values, lambda on_wire: dist.all_reduce(on_wire, dist.ReduceOp.MAX))


def of_rank_0(values: Tensor) -> Tensor:
    """Return rank 0's values on every rank, in a new tensor; one small message without checks.

    Args:
        values: Any shape and dtype that the backend supports, the same on every rank; not changed.
    """
    return _exchanged(values, lambda on_wire: dist.broadcast(on_wire, src=0))


def on_rank_0(work: Callable[[], object]) -> None:
    """Do something on rank 0 alone, such as reading a file; every rank calls it and waits.

    Raises:
        ValueError: Rank 0's ValueError or OSError, with the same text on every rank.
    """
    error: ValueError | OSError | None = None
    if rank() == 0:
        try:
            work()
        except (OSError, ValueError) as failure:
            error = failure
    text = "" if error is None else str(error) or type(error).__name__
    if world_size() > 1:
        text = tensor_to_bytes(broadcast_bytes(bytes_to_tensor(text.encode()) if rank() == 0 else None)).decode()
    if error is not None:
        raise error
    if text:
        raise ValueError(text)


def _exchanged(values: Tensor, exchange: Callable[[Tensor], object], *, group: Group = None) -> Tensor:
    result = values.detach().clone()
    if world_size(group) == 1:
        return result
    on_wire = result.to(wire_device(result.device, group))
    exchange(on_wire)
    return on_wire.to(result.device)


def _buckets(tensors: Mapping[str, Tensor], bucket_bytes: int) -> Iterator[list[Tensor]]:
    """Yield lists of views that together cover every element once; each list has one dtype and one device.

    The assignment to buckets depends on names, shapes and dtypes alone, so that all ranks cut the same way.
    """
    by_kind: dict[tuple[str, str], list[Tensor]] = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        by_kind.setdefault((str(tensor.dtype), tensor.device.type), []).append(tensor)
    for _, group in sorted(by_kind.items()):
        bucket: list[Tensor] = []
        num_bytes = 0
        for piece in (piece for tensor in group for piece in _pieces(tensor, bucket_bytes)):
            if bucket and num_bytes + piece.nbytes > bucket_bytes:
                yield bucket
                bucket, num_bytes = [], 0
            bucket.append(piece)
            num_bytes += piece.nbytes
        if bucket:
            yield bucket


def _pieces(tensor: Tensor, bucket_bytes: int) -> Iterator[Tensor]:
    """Cut along axis 0, which can be cut in any memory format without a copy."""
    if tensor.numel() == 0:
        return
    if tensor.nbytes <= bucket_bytes or tensor.ndim == 0:
        yield tensor
        return
    row_bytes = tensor.nbytes // tensor.shape[0]
    yield from torch.split(tensor, max(1, bucket_bytes // row_bytes))


def _broadcast_bucket(bucket: list[Tensor], group: Group) -> None:
    # Logical order (reshape), so that channels_last and contiguous ranks understand each other.
    flat = torch.cat([piece.reshape(-1) for piece in bucket])
    on_wire = flat.to(wire_device(flat.device, group))
    dist.broadcast(on_wire.view(torch.uint8), group=group, group_src=0)
    if rank(group) == 0:
        return
    received = torch.split(on_wire.to(flat.device), [piece.numel() for piece in bucket])
    for piece, values in zip(bucket, received, strict=True):
        piece.copy_(values.view(piece.shape))
