"""Weights of a network's layers, by the type of the module that holds them, and all other weights."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from inq_ray.core.unwrap import plain_name
from inq_ray.models.used_weights import is_transformed

_IN_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
# Why a weight is refused if the forward pass of a layer or network changes it before use.
CHANGED = "changed in forward of {} before use (rounded, standardized, scaled), so not used as a power of two"
# How a layer's weight is computed, by the suffix of a tensor that shows it, and what makes it a plain parameter again.
_PLAIN_AGAIN = {
    "mask": ("pruned", "torch.nn.utils.prune.remove(module, {key!r})"),
    "g": ("of weight_norm", "torch.nn.utils.remove_weight_norm(module, {key!r})"),
    "u": ("of spectral_norm", "torch.nn.utils.remove_spectral_norm(module, {key!r})"),
}


@dataclass(frozen=True)
class Weight:
    """A layer's weight, and the names that patterns are matched with: its own and those of the modules around it.

    Attributes:
        name: Name as in `named_parameters()`, without the parts added by torch.compile.
        names: Names that patterns are matched with.
        refusal: Why it cannot be quantized; "" = it can.
    """

    name: str
    names: tuple[str, ...]
    refusal: str = ""


def named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield every parameter once, by its first name; refuse lazy ones, which have no shape yet."""
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"{name} has no shape yet (a lazy module): run one batch through the model first")
        yield plain_name(name), parameter


def layer_weights(model: nn.Module) -> list[Weight]:
    """Return the weights that only convolutions, linear layers and attention hold, as in `named_parameters()`.

    Computed weights, which are not parameters, follow. Those that cannot be quantized have a `refusal`.
    """
    names: dict[torch.Tensor, list[str]] = {}
    refusals: dict[torch.Tensor, str] = {}
    elsewhere: set[torch.Tensor] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        keys = _weight_keys(module)
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if key in keys:
                names.setdefault(parameter, []).append(_joined(path, key))
                refusals[parameter] = refusals.get(parameter) or _transformation(module, key)
            else:
                elsewhere.add(parameter)
    stored = [
        Weight(name, tuple(around for own in names[parameter] for around in _around(own)), refusals[parameter])
        for name, parameter in named_parameters(model)
        if parameter in names and parameter not in elsewhere
    ]
    return stored + _computed(model)


def _weight_keys(module: nn.Module) -> tuple[str, ...]:
    """Return the names of a module's own parameters that are weights of a linear map."""
    if isinstance(module, _ConvNd | nn.Linear):
        return ("weight",)
    return _IN_PROJECTIONS if isinstance(module, nn.MultiheadAttention) else ()


def other_weights(model: nn.Module, weights: Iterable[Weight]) -> list[Weight]:
    """Return parameters of two or more dimensions that are neither layers' weights nor used to compute these."""
    known = {weight.name for weight in weights}
    computed_from = tuple(f"{weight.name}_" for weight in weights if weight.refusal)  # such as weight_v, weight_orig
    return [
        Weight(name, _around(name))
        for name, parameter in named_parameters(model)
        if parameter.dim() > 1
        and parameter.is_floating_point()
        and name not in known
        and ".parametrizations." not in f".{name}"
        and not name.startswith(computed_from)
    ]


def _transformation(module: nn.Module, key: str) -> str:
    """Return why a layer's weight cannot be quantized if the layer changes it before use, else ""."""
    return CHANGED.format(type(module).__name__) if is_transformed(module, key) else ""


def _computed(model: nn.Module) -> list[Weight]:
    """Return the layers' weights that are not parameters but computed from others (weight_norm, spectral_norm)."""
    return [
        Weight(name := _joined(path, key), _around(name), _how_computed(module, key))
        for path, module in model.named_modules()
        for key in _weight_keys(module)
        if key not in module._parameters  # noqa: SLF001  # reading the attribute would compute it, and change its state
    ]


def _how_computed(module: nn.Module, key: str) -> str:
    """Return why a computed weight cannot be quantized, and which function of torch makes it a plain parameter."""
    own = dict((*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)))
    for suffix, (what, remedy) in _PLAIN_AGAIN.items():
        if f"{key}_{suffix}" in own:
            return f"{what}, computed from other tensors (make it a plain one with {remedy.format(key=key)})"
    return (
        f"computed from other parameters (make it a plain one with torch.nn.utils.parametrize."
        f"remove_parametrizations(module, {key!r}))"
    )


def _joined(path: str, key: str) -> str:
    """Return the name of a parameter of the module at `path`; the model itself has an empty path."""
    return plain_name(f"{path}.{key}" if path else key)


def _around(name: str) -> tuple[str, ...]:
    """Return a parameter's name and those of all modules around it: "a.b.weight" -> "a.b.weight", "a.b", "a"."""
    parts = name.split(".")
    return tuple(".".join(parts[:length]) for length in range(len(parts), 0, -1))
