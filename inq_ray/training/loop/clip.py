"""Clipping of gradients by their norm over live weights."""

from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from inq_ray.core.optim.clip import check_max_norm, live_grads
from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.replica import of_rank_0


def clip_live_gradients(optimizer: SGD, max_norm: float) -> Tensor:
    """Scale gradients in place so that their norm over live weights is at most ``max_norm``; every rank calls it.

    As :func:`inq_ray.clip_grad_norm_`, but ranks clip by rank 0's norm, since machines of several kinds sum in several
    orders.

    Args:
        optimizer: its gradients are averaged over the ranks, and unscaled where a GradScaler has scaled them.
        max_norm: L2 norm, above 0.

    Returns:
        float [], the norm before clipping; NaN or infinite where a live weight's gradient is, and then no gradient is
        finite afterwards or all are 0, as in torch.

    Raises:
        ValueError: ``max_norm`` is not above 0.
    """
    check_max_norm(max_norm)
    params, gradients = live_grads(optimizer)
    norm = of_rank_0(get_total_norm(gradients))
    clip_grads_with_norm_(params, max_norm, norm)
    return norm
