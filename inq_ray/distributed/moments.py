"""Moments of layers' inputs over the images of all ranks."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from inq_ray.core.moments import Moments
from inq_ray.distributed.replica import sum_counts
from inq_ray.distributed.wire import Group, rank, wire_device, world_size


def gathered(moments: Moments, deciders: Mapping[str, int], *, group: Group = None) -> dict[str, Tensor]:
    """Return the moments over the samples of all ranks, on the rank that decides about each parameter.

    Every rank calls it. The order of additions depends only on the number of ranks and on the deciders, so that a
    repeated run gets the same bits.

    Args:
        moments: Moments of this rank, for the same layers on every rank.
        deciders: Rank by parameter name; other parameters are left out.
        group: Ranks that take part; None = all ranks.

    Returns:
        float64 [groups, n, n] by the name of each parameter that this rank decides about; without layers that were
        called on no rank.

    Raises:
        ValueError: No rank has run an image through the network; raised on every rank.
    """
    names = [name for name in moments.layers if name in deciders]
    own = [moments.num_calls, *(moments.counts.get(name, 0) for name in names)]
    num_calls, *counts = sum_counts(torch.tensor(own), group=group).tolist()
    if moments.layers and not num_calls and not any(counts):
        raise ValueError(
            "the moments contain no image: run images through the model within the context of Moments(model, "
            "inq_scheduler.quantized())"
        )
    found: dict[str, Tensor] = {}
    for name, count in zip(names, counts, strict=True):
        if count:
            total = _sum_on(deciders[name], _own(moments, name), group)
            if deciders[name] == rank(group):
                found[name] = total / count
    return found


def _own(moments: Moments, name: str) -> Tensor:
    layer = moments.layers[name]
    if name in moments.sums:
        return moments.sums[name]
    shape = (layer.groups, layer.inputs, layer.inputs)
    return torch.zeros(shape, dtype=torch.float64, device=layer.weight.device)


def _sum_on(decider: int, values: Tensor, group: Group) -> Tensor:
    """Return the sum over all ranks on one of them, anything on others; ``values`` do not change."""
    if world_size(group) == 1:
        return values
    on_wire = values.to(wire_device(values.device, group), copy=True)
    dist.reduce(on_wire, group=group, group_dst=decider)
    return on_wire.to(values.device)
