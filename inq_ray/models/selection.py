"""Which weights of a network are quantized, and to how many bits: by the type of the module that holds them.

Quantized is what Zhou et al. 2017 (arXiv 1702.03044) quantize: the weight of every convolution and every fully
connected layer, the first and the last one too. Biases, normalization and embeddings stay float.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from inq_ray.core.codebook import check_num_bits

COMPILED = "_orig_mod"


@dataclass(frozen=True)
class _Weight:
    """A quantizable weight and the names that patterns can meet: its own, its modules' and those around them."""

    name: str
    names: tuple[str, ...]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside DistributedDataParallel, DataParallel and torch.compile, or `model` itself."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, COMPILED, None), nn.Module):
            model = inner
        else:
            return model


def param_groups(
    model: nn.Module,
    weight_bits: int | None = 5,
    *,
    skip: Iterable[str] = (),
    bits: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Sort a model's parameters into groups for `inq_ray.SGD`: quantized ones by number of bits, then the float rest.

    Quantized is the `weight` of every instance of `nn.Linear` and of torch's convolutions (1d, 2d, 3d, transposed),
    told by the module's type and never by its name. Everything else stays float: biases, normalization, embeddings, and
    parameters that a module of another type holds itself (`in_proj_weight` of nn.MultiheadAttention).

    A parameter that several modules share is listed once, under its first name in `named_parameters()`. It is quantized
    only if every module that holds it is a convolution or a linear one: tied to an embedding it stays float, since
    embeddings do. A pattern that meets one of its names meets it.

    `requires_grad` changes nothing: a convolution that is not trained is quantized as well, without re-training, since
    the result promises powers of two everywhere. `skip` keeps it as it is.

    Args:
        model: The network; wrapped by DDP, DataParallel or torch.compile, its names are those of the network inside.
        weight_bits: Bits a quantized weight, 2 to 8; None leaves everything float but what `bits` names.
        skip: Patterns (fnmatch, case matters) of what stays float. A pattern is held against the parameter's name
            ("layer1.0.conv1.weight"), its module's ("layer1.0.conv1") and those of the modules around it ("layer1").
        bits: Pattern -> bits for exceptions; where several meet, the last one counts. `skip` goes before.

    Returns:
        Groups `{"params": [(name, parameter), ...], "weight_bits": int | None}`, in the order of first appearance, None
        last, none of them empty.

    Raises:
        ValueError: Bits out of range; a pattern that meets no quantizable weight; nothing to quantize; a weight that is
            lazy or computed by a parametrization.
    """
    bits = dict(bits or {})
    skip = (skip,) if isinstance(skip, str) else tuple(skip)
    _check_bits(weight_bits, bits)
    model = unwrap(model)
    weights, computed = _quantizable(model), _computed(model)
    for pattern in (*skip, *bits):
        _check_pattern(pattern, [*weights, *computed])
    for weight in computed:
        _check_skipped(weight, skip)
    chosen = {weight.name: _bits_of(weight, weight_bits, skip, bits) for weight in weights}
    if (weight_bits is not None or bits) and not any(chosen.values()):
        raise ValueError(
            f"nothing to quantize: all {len(weights)} convolution and linear weights of {type(model).__name__} stay "
            f"float by {skip=}; skip fewer, or pass weight_bits=None to train in float"
        )
    groups: dict[int | None, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in _named_parameters(model):
        groups.setdefault(chosen.get(name), []).append((name, parameter))
    order = sorted(groups, key=lambda num_bits: num_bits is None)
    return [{"params": groups[num_bits], "weight_bits": num_bits} for num_bits in order]


def _named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield every parameter once, by its first name; refuse lazy ones, which have no shape yet."""
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"{name} has no shape yet (a lazy module): run one batch through the model first")
        yield _plain(name), parameter


def _plain(name: str) -> str:
    """Return a name without the parts that torch.compile of a submodule puts into it."""
    return ".".join(part for part in name.split(".") if part != COMPILED)


def _quantizable(model: nn.Module) -> list[_Weight]:
    """Return the weights that only convolutions and linear layers hold, in the order of `named_parameters()`."""
    names: dict[torch.Tensor, list[str]] = {}
    elsewhere: set[torch.Tensor] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        is_layer = isinstance(module, _ConvNd | nn.Linear)
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if is_layer and key == "weight":
                names.setdefault(parameter, []).append(_weight_of(path))
            else:
                elsewhere.add(parameter)
    return [
        _Weight(name, tuple(around for own in names[parameter] for around in _around(own)))
        for name, parameter in _named_parameters(model)
        if parameter in names and parameter not in elsewhere
    ]


def _computed(model: nn.Module) -> list[_Weight]:
    """Return the layers' weights that are no parameters, but computed from others (weight_norm, spectral_norm)."""
    return [
        _Weight(name := _weight_of(path), _around(name))
        for path, module in model.named_modules()
        if isinstance(module, _ConvNd | nn.Linear)
        and "weight" not in dict(module.named_parameters(recurse=False, remove_duplicate=False))
    ]


def _check_skipped(weight: _Weight, skip: tuple[str, ...]) -> None:
    """Refuse a computed weight that is to be quantized: its parameters would move on under it."""
    if not any(_meets(pattern, weight.names) for pattern in skip):
        raise ValueError(
            f"{weight.name} is computed from other parameters (weight_norm or another parametrization): make it a "
            f"plain one with torch.nn.utils.parametrize.remove_parametrizations, or pass skip={[weight.name]}"
        )


def _weight_of(path: str) -> str:
    """Return the name of the weight of the module at `path`; the model itself has no path."""
    return _plain(f"{path}.weight" if path else "weight")


def _around(name: str) -> tuple[str, ...]:
    """Return a parameter's name and those of all modules around it: "a.b.weight" -> "a.b.weight", "a.b", "a"."""
    parts = name.split(".")
    return tuple(".".join(parts[:length]) for length in range(len(parts), 0, -1))


def _meets(pattern: str, names: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _bits_of(weight: _Weight, weight_bits: int | None, skip: tuple[str, ...], bits: dict[str, int]) -> int | None:
    """Return the bits of one quantizable weight; None = it stays float."""
    if any(_meets(pattern, weight.names) for pattern in skip):
        return None
    exceptions = [num_bits for pattern, num_bits in bits.items() if _meets(pattern, weight.names)]
    return exceptions[-1] if exceptions else weight_bits


def _check_bits(weight_bits: int | None, bits: dict[str, int]) -> None:
    """Refuse bits out of range, by name of the argument or pattern."""
    given = {f"bits[{pattern!r}]": num_bits for pattern, num_bits in bits.items()}
    if weight_bits is not None:
        given["weight_bits"] = weight_bits
    for what, num_bits in given.items():
        check_num_bits(num_bits, what)


def _check_pattern(pattern: str, weights: list[_Weight]) -> None:
    """Refuse a pattern that meets no quantizable weight, and name those that look like it."""
    if any(_meets(pattern, weight.names) for weight in weights):
        return
    known = list(dict.fromkeys(name for weight in weights for name in weight.names))
    near = ", ".join(difflib.get_close_matches(pattern, known, n=3, cutoff=0.4) or known[:3])
    raise ValueError(f"the pattern {pattern!r} matches no convolution or linear weight; nearest: {near or 'none'}")
