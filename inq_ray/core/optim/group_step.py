"""Step of a parameter group: which of torch's implementations steps which weights."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim.sgd import sgd

from inq_ray.core.optim.masked_step import (
    Weights,
    fused_rounds_as_loop,
    live_gradients,
    packs,
    step_in_blocks,
)

_OPTIONS = ("lr", "momentum", "dampening", "nesterov", "weight_decay", "maximize")


def step_group(group: dict[str, Any], weights: Sequence[Weights]) -> dict[Tensor, Tensor]:
    """Perform a step of a group, by the implementations that :class:`inq_ray.SGD` documents.

    Args:
        group: Options of torch.optim.SGD.
        weights: Parameters of the group that have a gradient and are not frozen as a whole.

    Returns:
        Momentum that was created, by parameter.
    """
    foreach, fused = group["foreach"], group["fused"]
    all_live = [each for each in weights if each.live is None]
    partly_frozen = [each for each in weights if each.live is not None]
    if (fused or (fused is None and foreach is None)) and all(each.param.is_cpu for each in weights):
        return _step_on_cpu(group, all_live, partly_frozen)
    created = _torch_step(group, all_live, foreach=foreach, fused=fused)
    for pack in packs(partly_frozen):
        created |= _torch_step(group, pack, foreach=foreach, fused=fused)
    return created


def _step_on_cpu(
    group: dict[str, Any], all_live: Sequence[Weights], partly_frozen: Sequence[Weights]
) -> dict[Tensor, Tensor]:
    """Use torch's fused kernel where it gives the bits that the group's own implementation gives."""
    fused, options = group["fused"], {key: group[key] for key in _OPTIONS}
    divided = [_divide(group, each) for each in all_live]
    created = _torch_step(group, [part for part, _ in divided if part is not None], foreach=False, fused=True)
    created |= _torch_step(group, [rest for _, rest in divided if rest is not None], foreach=False, fused=fused)
    for part, rest in (_divide(group, each) for each in partly_frozen):
        if part is not None:
            step_in_blocks(part, **options)
        if rest is not None:
            created |= _torch_step(group, [rest], foreach=False, fused=fused)
    return created


def _divide(group: dict[str, Any], weights: Weights) -> tuple[Weights | None, Weights | None]:
    """Return the part of CPU tensors for torch's fused kernel, and the rest for the group's own implementation."""
    if group["fused"] and weights.live is None:
        return weights, None
    is_first_step = group["momentum"] != 0 and weights.momentum is None  # in which torch creates the momentum
    if is_first_step or not weights.is_plain():
        return None, weights
    if group["fused"]:
        return weights, None
    return weights.divide() if fused_rounds_as_loop(weights.param.dtype) else (None, weights)


def _torch_step(
    group: dict[str, Any], weights: Sequence[Weights], *, foreach: bool | None, fused: bool | None
) -> dict[Tensor, Tensor]:
    """Perform torch's step, either for all-live weights, or for partly frozen ones with T · (g + λ W).

    Returns:
        Momentum that was created, by parameter.
    """
    if not weights:
        return {}
    weight_decay, maximize = group["weight_decay"], group["maximize"]
    if weights[0].live is not None:
        grads = live_gradients(weights, weight_decay=weight_decay, maximize=maximize)
        weight_decay, maximize = 0.0, False
    else:
        grads = [each.grad for each in weights]
        is_plain = weight_decay == 0 and not maximize
        if group["nesterov"] and is_plain and not fused and foreach is not False:
            grads = [grad.clone() for grad in grads]  # torch's foreach implementation would add the momentum to them
    momenta = [each.momentum for each in weights] if group["momentum"] != 0 else []
    sgd(
        [each.param for each in weights],
        grads,
        momenta,
        has_sparse_grad=any(grad.is_sparse for grad in grads),
        foreach=foreach,
        fused=fused,
        weight_decay=weight_decay,
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=maximize,
    )
    return {
        each.param: momentum
        for each, momentum in zip(weights, momenta, strict=False)
        if each.momentum is None and momentum is not None
    }
