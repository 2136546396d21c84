"""Learning rates that say the same whatever the size of a network's weights.

A layer that normalization follows computes the same with its weights scaled by c; its gradient then is 1/c of what it
was, and relative to the weights a step of SGD 1/c². What trains is the effective rate, lr / ‖w‖² (van Laarhoven 2017,
arXiv 1706.05350), and two trained networks that answer alike may lie far apart in ‖w‖². So a rate that is found good
for one is given as an effective one: of a network whose filters have norm 1.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

# Of a group of parameters: what its learning rate is multiplied by, and its weight decay divided.
LR_UNIT = "lr_unit"


def lr_unit(groups: Iterable[Mapping[str, Any]]) -> float:
    """The rate of SGD that is an effective rate of 1: the squared norm of a filter, W[i], of the quantized weights.

    The mean over each tensor's filters, of these the median over tensors, which leaves out what differs much, as the
    last layer does, whose output nothing normalizes. In float64 on the CPU and rounded to eight bits, so that it is the
    same number on ranks with other processors.

    Args:
        groups: of :func:`inq_ray.param_groups`, of the network before its first stage.

    Returns:
        Above 0. SGD takes lr times it and weight decay over it, so that their product, the share of a weight that
        decays in a step, stays as it is.

    Raises:
        ValueError: there is no such number: half of the tensors are 0, or one is not finite.
    """
    weights = [param for group in groups if group["weight_bits"] is not None for _, param in group["params"]]
    norm = statistics.median(map(_squared_filter_norm, weights))
    if not (norm > 0 and math.isfinite(norm)):
        raise ValueError(
            f"--effective-lr is relative to the squared norm of the network's filters, which is {norm}: give trained "
            "weights, or leave it out"
        )
    mantissa, exponent = math.frexp(norm)
    return math.ldexp(round(mantissa * 256) / 256, exponent)


def effective_lr_line(unit: float) -> str:
    """What is told of it."""
    return f"rates are multiplied by {unit:g}, the squared norm of a filter, weight decay divided (--effective-lr)"


def _squared_filter_norm(weight: Tensor) -> float:
    return weight.detach().cpu().double().square().sum().item() / len(weight)
