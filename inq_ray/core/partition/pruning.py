"""Strategy "pruning", the paper's: the largest weights freeze first."""

from torch import Tensor

from inq_ray.core.codebook import magnitudes


def keys(weight: Tensor, _seed: int, _stage: int, _name: str) -> Tensor:
    """Return the magnitudes as order-preserving integers; see :data:`inq_ray.core.partition.STRATEGIES`."""
    return magnitudes(weight.contiguous())
