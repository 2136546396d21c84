"""Scaling of output channels that BatchNorm takes back: the same network, nearer to powers of two.

A codebook has one largest power for a whole tensor, while the channels of a layer differ in size. BatchNorm behind a
layer divides by each channel's standard deviation, so a factor of the channel changes nothing (the idea is that of
cross-layer equalization in Nagel et al. 2019, arXiv 1906.04721, section 4.1, with BatchNorm as the next layer).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from inq_ray.core.channel_scale import channel_scales
from inq_ray.core.codebook import Rule
from inq_ray.models.selection import named_parameters, unwrap

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# In training BatchNorm divides by sqrt(variance + eps): a factor changes nothing as long as eps is small beside it.
_VARIANCE_OVER_EPS = 10.0
_TOLERANCE = 1e-3


@torch.no_grad()
def equalize(
    model: nn.Module, groups: Iterable[Mapping[str, Any]], example: Tensor, *, codebook: Rule = "weighted"
) -> list[str]:
    """Scales the channels of layers that BatchNorm follows, and BatchNorm's statistics, in place, before any stage.

    A layer counts whose weight is to be quantized, and whose output, where the model is run on the example, goes into
    one BatchNorm layer and nowhere else. Others stay as they are, and so do channels that are all but constant.

    Args:
        model: the float network; wrapped or not.
        groups: as :func:`inq_ray.param_groups` makes them.
        example: a batch as the model takes it, on its device.
        codebook: the rule that the stages will follow: "weighted" or "mse".

    Returns:
        Names of the scaled weights.

    Raises:
        ValueError: the rule is "max", or the network's outputs for the example are others afterwards, so that it is no
            such network; nothing is changed then.
    """
    if codebook == "max":
        raise ValueError('channels are scaled towards powers of least error: pass codebook="weighted" or "mse"')
    model = unwrap(model)
    bits = {id(parameter): group["weight_bits"] for group in groups for _, parameter in group["params"]}
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        pairs, before = _run(model, example)
        scaled = {
            name: (layer, norm) for name, layer, norm in _named(model, pairs) if bits.get(id(layer.weight)) is not None
        }
        kept = {tensor: tensor.clone() for pair in scaled.values() for tensor in _tensors(*pair)}
        for layer, norm in scaled.values():
            _scale(layer, norm, channel_scales(layer.weight, bits[id(layer.weight)], codebook))
        difference = float((model(example) - before).abs().max() / before.abs().max().clamp(min=1e-30))
    finally:
        for module, mode in was_training.items():
            module.training = mode
    if not difference <= _TOLERANCE:
        for tensor, value in kept.items():
            tensor.copy_(value)
        raise ValueError(
            f"scaling channels changed the network's outputs by {difference:.1g} of the largest, where it should "
            "change nothing: something uses a layer's weights or BatchNorm's statistics in another way; leave it out"
        )
    return list(scaled)


class _Uses(TorchFunctionMode):
    """Counts how often each watched tensor is given to a function of torch that returns tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: dict[int, Tensor] = {}
        self.counts: Counter[int] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if _has_tensor(result):
            given = {id(value) for value in _leaves((args, kwargs))}
            self.counts.update(given & self.watched.keys())
        return result


def _run(model: nn.Module, example: Tensor) -> tuple[list[tuple[nn.Module, _BatchNorm]], Tensor]:
    """Layers with the BatchNorm that alone takes their output, and the model's output for the example."""
    uses, calls = _Uses(), Counter[nn.Module]()
    made_by: dict[int, nn.Module] = {}
    taken: list[tuple[nn.Module, _BatchNorm, int]] = []

    def after_layer(module: nn.Module, _: Any, output: Tensor) -> None:
        calls[module] += 1
        uses.watched[id(output)] = output  # kept, so that no other tensor gets its id
        made_by[id(output)] = module

    def before_norm(module: nn.Module, args: tuple[Any, ...]) -> None:
        calls[module] += 1
        if args and id(args[0]) in made_by:
            taken.append((made_by[id(args[0])], module, id(args[0])))  # type: ignore[arg-type]

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, _LAYERS):
                hooks.callback(module.register_forward_hook(after_layer).remove)
            elif isinstance(module, _BatchNorm):
                hooks.callback(module.register_forward_pre_hook(before_norm).remove)
        with uses:
            output: Tensor = model(example)
    pairs = [
        (layer, norm)
        for layer, norm, key in taken
        if calls[layer] == calls[norm] == uses.counts[key] == 1
        and key != id(output)
        and _has_channels_alike(layer, norm, uses.watched[key])
    ]
    return pairs, output


def _has_channels_alike(layer: nn.Module, norm: _BatchNorm, output: Tensor) -> bool:
    """Whether what BatchNorm counts as channels are the layer's outputs, each with its own part of the weight."""
    is_flat = output.dim() == 2 if isinstance(layer, nn.Linear) else output.dim() > 2
    return is_flat and output.shape[1] == norm.num_features == len(layer.weight)  # type: ignore[arg-type]


def _named(model: nn.Module, pairs: Iterable[tuple[nn.Module, _BatchNorm]]) -> list[tuple[str, Any, _BatchNorm]]:
    """The pairs whose tensors no other module has, by the name of the weight."""
    names = {id(parameter): name for name, parameter in named_parameters(model)}
    owners = Counter(
        id(tensor)
        for module in model.modules()
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    )
    return [
        (names[id(layer.weight)], layer, norm)
        for layer, norm in pairs
        if id(layer.weight) in names and all(owners[id(tensor)] == 1 for tensor in _tensors(layer, norm))
    ]


def _tensors(layer: Any, norm: _BatchNorm) -> list[Tensor]:
    """What a scale changes."""
    all_of_them = (layer.weight, layer.bias, norm.running_mean, norm.running_var)
    return [tensor for tensor in all_of_them if tensor is not None]


def _scale(layer: Any, norm: _BatchNorm, scales: Tensor) -> None:
    """Multiplies channels by scales (float64 [channels]), and makes BatchNorm's statistics those of the result."""
    if norm.running_var is not None and norm.running_mean is not None:
        variance = norm.running_var.double()
        is_safe = variance * scales.square().clamp(max=1) >= _VARIANCE_OVER_EPS * norm.eps
        scales = torch.where(is_safe, scales, 1.0)
        norm.running_mean.copy_(norm.running_mean.double() * scales)
        norm.running_var.copy_(torch.where(is_safe, (variance + norm.eps) * scales.square() - norm.eps, variance))
    shape = [-1] + [1] * (layer.weight.dim() - 1)
    layer.weight.copy_(layer.weight.double() * scales.view(shape))
    if layer.bias is not None:
        layer.bias.copy_(layer.bias.double() * scales)


def _leaves(values: Any) -> Iterable[Any]:
    """What nested tuples, lists and dictionaries hold."""
    if isinstance(values, dict):
        values = tuple(values.values())
    if isinstance(values, tuple | list):
        for value in values:
            yield from _leaves(value)
    else:
        yield values


def _has_tensor(values: Any) -> bool:
    return any(isinstance(value, Tensor) for value in _leaves(values))
