"""Clipping of gradients by their norm over live weights."""

from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from inq_ray.core.optim.clip import check_max_norm, with_grads
from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.replica import of_rank_0


def clip_live_gradients(optimizer: SGD, max_norm: float) -> Tensor:
    """Scale gradients in place so that their norm over live weights is at most ``max_norm``; every rank calls it.

    Like :func:`inq_ray.clip_grad_norm_`, but all ranks clip by rank 0's norm, because different machines sum in
    different orders.

    Args:
        optimizer: Optimizer whose gradients are averaged over the ranks, and unscaled if a GradScaler scaled them.
        max_norm: Maximum L2 norm, above 0.

    Returns:
        float [], the norm before clipping; NaN or infinite if a live weight's gradient is. As in torch, all gradients
        are then not finite, or 0.

    Raises:
        ValueError: ``max_norm`` is not above 0.
    """
    check_max_norm(max_norm)
    norm = of_rank_0(get_total_norm(optimizer.live_grads()))
    clip_grads_with_norm_(with_grads(optimizer), max_norm, norm)
    return norm
