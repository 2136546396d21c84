"""Moments of layers' inputs over the images of all ranks."""

import torch
from torch import Tensor

from inq_ray.core.moments import Moments
from inq_ray.distributed.replica import sum_counts
from inq_ray.distributed.wire import Group


def gathered(moments: Moments, *, group: Group = None) -> dict[str, Tensor]:
    """Return the moments over the samples of all ranks, float64 [groups, n, n] by parameter name; every rank calls it.

    The order of additions depends only on the number of ranks, so that a repeated run gets the same bits.

    Args:
        moments: Moments of this rank, for the same layers on every rank. Layers called on no rank are left out.
        group: Ranks that take part; None = all ranks.
    """
    found: dict[str, Tensor] = {}
    for name, layer in moments.layers.items():
        count = int(sum_counts(torch.tensor(moments.counts.get(name, 0)), group=group))
        if count:
            shape = (layer.groups, layer.inputs, layer.inputs)
            own = moments.sums.get(name)
            none = torch.zeros(shape, dtype=torch.float64, device=layer.weight.device)
            found[name] = sum_counts(none if own is None else own, group=group) / count
    return found
