"""Clipping of gradients by their norm over live weights."""

from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from inq_ray.core.optim.sgd import SGD, unwrapped


def clip_grad_norm_(
    optimizer: SGD,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale gradients in place so that their norm over live weights is at most ``max_norm``.

    Like torch.nn.utils.clip_grad_norm_ on the vector of live weights' gradients, bit for bit if nothing is frozen.
    Gradients of frozen weights, which the step does not read, have no effect on the norm, and are scaled as well.

    Args:
        optimizer: An :class:`inq_ray.SGD`, wrapped by a trainer or not. Its gradients are averaged over the ranks, and
            unscaled if a GradScaler has scaled them.
        max_norm: Maximum norm, above 0.
        norm_type: p of the p-norm; may be inf.
        error_if_nonfinite: Whether to raise RuntimeError if the norm is NaN or infinite.
        foreach: Whether to use torch's foreach implementation; None = torch decides.

    Returns:
        float [], the norm before clipping; 0 if there is no gradient.

    Raises:
        ValueError: ``max_norm`` is not above 0, or ``optimizer`` is not an :class:`inq_ray.SGD`.

    Examples:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.tensor([0.5, 0.3, 0.2]))
        >>> optimizer = SGD([weight], lr=0.1)
        >>> optimizer.freeze(weight, torch.tensor([True, False, False]))
        >>> weight.grad = torch.tensor([100.0, 3.0, 4.0])
        >>> clip_grad_norm_(optimizer, max_norm=1.0)
        tensor(5.)
        >>> [round(grad, 4) for grad in weight.grad[1:].tolist()]
        [0.6, 0.8]
    """
    optimizer = unwrapped(optimizer)
    check_max_norm(max_norm)
    norm = get_total_norm(optimizer.live_grads(), norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(with_grads(optimizer), max_norm, norm, foreach)
    return norm


def with_grads(optimizer: SGD) -> list[Tensor]:
    """Return the parameters that have gradients."""
    return [param for group in optimizer.param_groups for param in group["params"] if param.grad is not None]


def check_max_norm(max_norm: float) -> None:
    """Raise ValueError unless ``max_norm`` is above 0."""
    if not max_norm > 0:
        raise ValueError(f"the maximum norm of gradients must be above 0, got {max_norm}")
