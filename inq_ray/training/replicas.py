"""What of a run must be the same bits on every rank."""

from torch import Tensor

from inq_ray.distributed.digest import state_tensors
from inq_ray.training.checkpoint.snapshot import Parts, momentum_of


def replicated(parts: Parts, *, has_buffers: bool) -> dict[str, Tensor]:
    """Weights, masks and codes, and where there is an optimizer its momentum, by name; not copies.

    Args:
        parts: the run's objects.
        has_buffers: whether buffers are the same too: not while a phase trains.
    """
    model = parts.model
    tensors = dict(model.state_dict() if has_buffers else model.named_parameters())
    if parts.optimizer is not None:
        tensors |= {f"{name}/momentum": each for name, each in momentum_of(model, parts.optimizer).items()}
    return tensors | (state_tensors(parts.inq.state) if parts.inq is not None else {})
