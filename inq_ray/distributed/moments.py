"""Moments of layers' inputs over the images of all ranks."""

import torch
from torch import Tensor

from inq_ray.core.moments import Moments
from inq_ray.distributed.replica import sum_counts


def gathered(moments: Moments) -> dict[str, Tensor]:
    """Return the moments over the samples of all ranks, float64 [groups, n, n] by parameter name; every rank calls it.

    The number of ranks alone decides in which order sums are added, so that a run that is repeated gets the same bits.

    Args:
        moments: this rank's, of the same layers on every rank. A layer through which nothing ran on any is left out.
    """
    found: dict[str, Tensor] = {}
    for name, layer in moments.layers.items():
        count = int(sum_counts(torch.tensor(moments.counts.get(name, 0))))
        if count:
            shape = (layer.groups, layer.inputs, layer.inputs)
            own = moments.sums.get(name)
            none = torch.zeros(shape, dtype=torch.float64, device=layer.weight.device)
            found[name] = sum_counts(none if own is None else own) / count
    return found
