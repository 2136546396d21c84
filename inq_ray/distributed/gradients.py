"""Gradients of live weights: the only ones that DDP's ranks exchange.

All ranks have the same masks, so each takes the live entries of a bucket by their positions, the ranks sum these, and
each puts them back. Positions rather than masks: for a bucket of 25 MB on a CPU masked_select takes 61 ms and
index_select 2.5, masked_scatter_ 24 and index_copy_ 5.4.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from inq_ray.core.optim.sgd import unwrapped
from inq_ray.core.packing import indices


class _Bucket(NamedTuple):
    """What is known of a bucket, as long as it has these parameters and nothing else freezes.

    Attributes:
        params: Its parameters.
        positions: int64 [n], positions of live entries in its buffer; None = all are live.
    """

    params: list[Tensor]
    positions: Tensor | None


class LiveGradients:
    """Communication hook for DistributedDataParallel that sends only the gradients of live weights.

    Frozen weights' gradients become 0 on every rank; :class:`inq_ray.SGD` does not read them. On two ranks live weights
    get the bits that they get without the hook. On more ranks the order of a sum depends on an element's position in a
    message, so bits differ from those without the hook, but not between ranks, and not between two runs.

    It takes 8 bytes of memory for each entry of a bucket with frozen weights that is live.

    Args:
        optimizer: The :class:`inq_ray.SGD` of the model's parameters, wrapped by a trainer or not.
        dtype: Dtype in which gradients are sent, such as torch.bfloat16; None = their own.

    Attributes:
        is_on: Whether only live weights' gradients are sent; else all are, as without the hook.
        dtype: Dtype in which gradients are sent; None = their own.
        num_bytes: Bytes of gradients that this rank has handed over to be summed so far.

    Raises:
        ValueError: ``optimizer`` is not an :class:`inq_ray.SGD`.

    Examples:
        >>> from inq_ray.core.optim.sgd import SGD
        >>> layer = torch.nn.Linear(4, 2)
        >>> live = LiveGradients(SGD(layer.parameters(), lr=0.1))
        >>> # model = DistributedDataParallel(layer)
        >>> # model.register_comm_hook(None, live.all_reduce)
    """

    def __init__(self, optimizer: Any, dtype: torch.dtype | None = None) -> None:
        self.is_on = True
        self.dtype = dtype
        self.num_bytes = 0
        self._optimizer = unwrapped(optimizer)
        self._num_freezes = self._optimizer.num_freezes
        self._buckets: dict[int, _Bucket] = {}

    def all_reduce(
        self,
        group: dist.ProcessGroup | None,
        bucket: dist.GradBucket,  # type: ignore[name-defined]
    ) -> torch.futures.Future[Tensor]:
        """Average a bucket's gradients over the ranks; DDP calls it.

        Args:
            group: Ranks that take part, registered as the hook's state; None = all.
            bucket: Gradients of this rank.

        Returns:
            Future of the bucket's buffer.
        """
        buffer: Tensor = bucket.buffer()
        positions = self._positions(bucket) if self.is_on else None
        values = buffer if positions is None else buffer.index_select(0, positions)
        # By the product with the inverse, as DDP does: a quotient by three is rounded differently.
        values = values.mul_(1 / dist.get_world_size(group)).to(self.dtype or values.dtype)
        self.num_bytes += values.nbytes

        def put_back(future: torch.futures.Future[list[Tensor]]) -> Tensor:
            averages = future.value()[0].to(buffer.dtype)
            return buffer.copy_(averages) if positions is None else buffer.zero_().index_copy_(0, positions, averages)

        work = dist.all_reduce(values, group=group, async_op=True)
        assert work is not None
        averaged: torch.futures.Future[Tensor] = work.get_future().then(put_back)
        return averaged

    def _positions(self, bucket: dist.GradBucket) -> Tensor | None:  # type: ignore[name-defined]
        """Return the positions of live entries in a bucket's buffer; None if all are live.

        They are made once for a stage, and again if DDP has rebuilt its buckets, as it does after the first pass.
        """
        if self._num_freezes != self._optimizer.num_freezes:
            self._buckets.clear()
            self._num_freezes = self._optimizer.num_freezes
        params = bucket.parameters()
        known = self._buckets.get(bucket.index())
        if known is None or [id(param) for param in known.params] != [id(param) for param in params]:
            known = self._buckets[bucket.index()] = _Bucket(params, self._found(bucket.buffer(), params))
        return known.positions

    def _found(self, buffer: Tensor, params: list[Tensor]) -> Tensor | None:
        """Return the positions of live entries in a buffer in which gradients of parameters lie one after the other."""
        frozen = torch.zeros(buffer.numel(), dtype=torch.bool, device=buffer.device)
        for param, flat in zip(params, torch.split(frozen, [param.numel() for param in params]), strict=True):
            _in_bucket(flat, param).copy_(self._optimizer.frozen(param))
        return indices(~frozen) if bool(frozen.any()) else None


def _in_bucket(flat: Tensor, param: Tensor) -> Tensor:
    """Return a view of a bucket's entries for a parameter in its shape: with its strides if it has no gaps, as DDP."""
    is_dense = torch.empty_like(param, device="meta").stride() == param.stride()
    return flat.as_strided(param.shape, param.stride()) if is_dense else flat.view(param.shape)
