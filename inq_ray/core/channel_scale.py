"""Scales of a layer's output channels under which each channel lies as near to powers of two as it can."""

import math

import torch
from torch import Tensor

from inq_ray.core.codebook import Codebook, Rule, max_magnitude

_STEPS_OF_OCTAVE = 16
# The level 2^n_1 of least error is below 4/3 of the largest weight, as from there on nothing is rounded up to it, and
# above half the root mean square.
_STEPS_ABOVE = 6
_BELOW_RMS = 0.5


@torch.no_grad()
def channel_scales(weight: Tensor, num_bits: int, rule: Rule) -> Tensor:
    """Factors of the output channels that make one codebook right for all of them.

    A codebook has one n_1 for a tensor, a whole number. Where something behind a layer takes a factor of each channel
    back, as BatchNorm does, channels can be brought to it one by one: the factor of a channel makes its error, as the
    rule measures it, least at 2^n, the same n for all, of which the factors' geometric mean is near 1. So it is the n_1
    that the rule finds in the scaled tensor.

    Args:
        weight: float [channels, ...].
        num_bits: width of a weight.
        rule: "mse" or "weighted", see :meth:`Codebook.for_weight`.

    Returns:
        float64 [channels], above 0; 1 for a channel of zeros.

    Raises:
        ValueError: weights are NaN or infinite, or the dtype cannot be quantized.
    """
    assert rule != "max", "its codebook follows from a single weight"
    max_magnitude(weight)
    rows = weight.detach().reshape(len(weight), -1).double()
    is_zero = rows.abs().amax(dim=1) == 0
    if is_zero.all():
        return torch.ones_like(rows[:, 0])
    units = torch.ones_like(rows[:, 0])
    units[~is_zero] = _units(rows[~is_zero], num_bits, power=1 if rule == "weighted" else 0)
    exponent = round(float(units[~is_zero].log2().mean()))
    return torch.where(is_zero, 1.0, math.ldexp(1.0, exponent) / units)


def _units(rows: Tensor, num_bits: int, power: int) -> Tensor:
    """What 2^n_1 has to stand for in each row; float64 [rows, weights] to [rows].

    Error is sum |w|^power (w - q)^2. It is no convex function of the unit, so all units are tried.
    """
    largest = rows.abs().amax(dim=1)
    octaves = float((largest / rows.square().mean(dim=1).sqrt()).log2().max()) - math.log2(_BELOW_RMS)
    codebook = Codebook(num_bits, 0)
    best, least = largest, torch.full_like(largest, math.inf)
    for step in range(-_STEPS_ABOVE, math.ceil(octaves * _STEPS_OF_OCTAVE) + 1):
        unit = largest * 2.0 ** (-step / _STEPS_OF_OCTAVE)
        values = rows / unit[:, None]
        errors = (codebook.quantize(values) - values).square_()
        if power:
            errors *= values.abs()
        error = errors.sum(dim=1) * unit ** (2 + power)
        best = torch.where(error < least, unit, best)
        least = torch.minimum(error, least)
    return best
