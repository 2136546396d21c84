"""Groups of a network's parameters, by the bits that the configuration gives them."""

from typing import Any

from torch import nn

from inq_ray.models.layer_bits import check_layer_bits
from inq_ray.models.selection import float_note, make_groups
from inq_ray.training.config import RunConfig


def groups_of(model: nn.Module, config: RunConfig) -> list[dict[str, Any]]:
    """Return the groups of :func:`inq_ray.param_groups`.

    Raises:
        ValueError: A pattern matches no weight, --layer-bits contradicts itself, or a weight cannot be quantized.
    """
    quantization = config.quantization
    check_layer_bits(model, config.layer_bits, skip=quantization.skip, include=quantization.include)
    return make_groups(
        model,
        config.num_bits,
        skip=quantization.skip,
        bits=config.layer_bits,
        include=quantization.include,
        levels=quantization.levels,
        codebook_per=quantization.codebook_per,
    )


def quantized_names(groups: list[dict[str, Any]]) -> list[str]:
    """Return the names of the quantized parameters."""
    return [name for group in groups if group["weight_bits"] is not None for name, _ in group["params"]]


def float_notes(config: RunConfig, model: nn.Module) -> list[str]:
    """Return lines about weights that stay float unintentionally: a large part, or some that --layer-bits matches."""
    if config.plain:
        return []
    quantization = config.quantization
    notes = check_layer_bits(model, config.layer_bits, skip=quantization.skip, include=quantization.include)
    note = float_note(model, quantized_names(groups_of(model, config)), quantization.skip)
    advice = "quantize them with --include PATTERN, or accept it with --skip PATTERN"
    return [*notes, f"{note}: {advice}"] if note else notes
