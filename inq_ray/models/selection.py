"""Selection of the weights to quantize and their bits, by the type of the module that holds them.

As in Zhou et al. 2017 (arXiv 1702.03044), the weights of all convolutions and fully connected layers are quantized,
including the first and the last layer. Biases, normalization and embeddings stay float. So do the weights of modules
that are not in torch.nn, or that are recurrent layers, unless a pattern of `include` names them: transformers' Conv1D,
LSTM and GRU, a mixture's experts in one tensor.

The paper does not cover attention. The query, key and value projections of nn.MultiheadAttention are linear layers
under other names, and are quantized: `in_proj_weight` as it is stored, with one codebook for all three, or
`q_proj_weight`, `k_proj_weight` and `v_proj_weight`. Its `out_proj` is a linear layer; its biases, `bias_k` and
`bias_v` included, stay float.
"""

import difflib
import warnings
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from inq_ray.core.channels import Per, check_per
from inq_ray.core.codebook import Levels, check_levels, check_num_bits
from inq_ray.core.owners import remember, shown
from inq_ray.core.unwrap import unwrap
from inq_ray.models.layer_weights import CHANGED, Weight, layer_weights, named_parameters, other_weights
from inq_ray.models.used_weights import transformed_weights

# Class names of FSDP 1 and 2, whose ranks hold shards of the parameters.
_SHARDING = frozenset({"FullyShardedDataParallel", "FSDPModule"})
# Percentage of quantized weights below which a warning is issued.
_WANTED_SHARE = 0.8


def param_groups(
    model: nn.Module,
    weight_bits: int | None = 5,
    *,
    skip: Iterable[str] = (),
    bits: Mapping[str, int] | None = None,
    include: Iterable[str] = (),
    example: Any = None,
    levels: Levels = "paper",
    codebook_per: Per = "tensor",
) -> list[dict[str, Any]]:
    """Sort a model's parameters into groups for `inq_ray.SGD`: quantized ones by number of bits, then float ones.

    Quantized are the `weight` of every `nn.Linear` and every torch convolution (1d, 2d, 3d, transposed), and the input
    projections of `nn.MultiheadAttention`. Modules are recognized by type, never by name. All other parameters stay
    float: biases, normalization, embeddings, and parameters of other types of modules.

    A parameter that several modules share is listed once, under its first name in `named_parameters()`. It is quantized
    only if it is such a weight in all of them: a weight tied to an embedding stays float. A pattern that matches any of
    its names matches the parameter.

    `requires_grad` has no effect: a frozen convolution is quantized too, without re-training, because the result
    promises powers of two everywhere. Use `skip` to keep it as it is.

    Args:
        model: The network. If it is wrapped by DDP, DataParallel or torch.compile, names are those of the network
            inside.
        weight_bits: Bits per quantized weight, 2 to 8; None keeps all weights float except those in `bits`.
        skip: Patterns (fnmatch, case-sensitive) of weights that stay float. A pattern is matched with the parameter's
            name ("layer1.0.conv1.weight"), its module's ("layer1.0.conv1") and those of modules around it ("layer1").
        bits: Exceptions, pattern -> bits; the last match counts. `skip` takes precedence.
        include: Patterns of other parameters, with two or more dimensions, to quantize as well.
        example: Input of the model's forward: a tensor, a tuple of arguments, or a dictionary of keyword arguments. One
            forward pass then finds every weight that the network changes before use; without it, layers are checked one
            by one.
        levels: "paper": zero and 2^(bits-2) powers of two of either sign; "full": all 2^(bits-1) - 1 that have codes.
        codebook_per: "tensor": one largest power per tensor; "channel": one per output channel.

    Returns:
        Groups `{"params": [(name, parameter), ...], "weight_bits": int | None, "levels": ..., "codebook_per": ...}` in
        the order of first appearance, None last; no group is empty.

    Raises:
        ValueError: The model is not a module; bits, levels or codebook_per are not allowed; a pattern matches no
            quantizable weight; there is nothing to quantize; a weight is lazy, computed by a parametrization, or
            changed in forward before use, as in quantization-aware training or standardization; the network is sharded
            (FSDP).

    Warns:
        UserWarning: Less than 80 % of the weights are quantized; names the largest others. Weights in `skip` do not
            count.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
        >>> for group in param_groups(model, weight_bits=5, bits={"0": 8}):
        ...     print(group["weight_bits"], [name for name, _ in group["params"]])
        8 ['0.weight']
        5 ['3.weight']
        None ['0.bias', '1.weight', '1.bias', '3.bias']
    """
    skip, include = as_patterns(skip), as_patterns(include)
    groups = make_groups(
        model, weight_bits, skip=skip, bits=bits, include=include, levels=levels, codebook_per=codebook_per
    )
    chosen = [name for group in groups if group["weight_bits"] for name, _ in group["params"]]
    if example is not None:
        check_used_as_stored(model, chosen, example)
    if weight_bits is not None and (note := float_note(model, chosen, skip)):
        warnings.warn(f"{note}: quantize them with include=[...], or accept it with skip=[...]", stacklevel=2)
    return groups


def make_groups(
    model: nn.Module,
    weight_bits: int | None,
    *,
    skip: Iterable[str] = (),
    bits: Mapping[str, int] | None = None,
    include: Iterable[str] = (),
    levels: Levels = "paper",
    codebook_per: Per = "tensor",
) -> list[dict[str, Any]]:
    """Return the groups of :func:`param_groups` without its warning; arguments and errors are the same."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    model = unwrap(model)
    check_levels(levels)
    check_per(codebook_per)
    if weight_bits is not None or bits:
        _check_whole(model)
    chosen = choose(model, weight_bits, skip=skip, bits=bits, include=include)
    groups: dict[int | None, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in named_parameters(model):
        groups.setdefault(chosen.get(name), []).append((name, parameter))
    remember(model)  # INQScheduler checks that these stay the model's parameters
    order = sorted(groups, key=lambda num_bits: num_bits is None)
    return [
        {"params": groups[num_bits], "weight_bits": num_bits, "levels": levels, "codebook_per": codebook_per}
        for num_bits in order
    ]


def choose(
    model: nn.Module,
    weight_bits: int | None,
    *,
    skip: Iterable[str] = (),
    bits: Mapping[str, int] | None = None,
    include: Iterable[str] = (),
) -> dict[str, int | None]:
    """Return the bits of every layer's weight and every included one by name, None = float; see `param_groups`."""
    bits = dict(bits or {})
    skip, include = as_patterns(skip), as_patterns(include)
    _check_bits(weight_bits, bits)
    model = unwrap(model)
    weights = layer_weights(model)
    others = other_weights(model, weights)
    for pattern in include:
        check_pattern(pattern, others, "float tensor of two or more dimensions")
    for pattern in skip:
        check_pattern(pattern, weights, also=others)
    weights += included(others, include)
    for pattern in bits:
        check_pattern(pattern, weights)
    chosen = {weight.name: _bits_of(weight, weight_bits, skip, bits) for weight in weights}
    _check_refusals([weight for weight in weights if weight.refusal and chosen[weight.name] is not None])
    if (weight_bits is not None or bits) and not any(chosen.values()):
        network = type(model).__name__
        why = f"all {len(weights)} convolution and linear weights of {network} stay float by {skip=}; skip fewer, or"
        if not weights:
            why = f"{network} has no convolution, linear layer or attention of torch.nn (TorchScript hides its own);"
        raise ValueError(f"nothing to quantize: {why} pass weight_bits=None to train in float")
    return chosen


def included(others: Iterable[Weight], include: Iterable[str]) -> list[Weight]:
    """Return those of the other weights that a pattern of `include` matches."""
    return [weight for weight in others if any(matches(pattern, weight.names) for pattern in include)]


def as_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return patterns as a tuple; a single string is one pattern."""
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def float_note(model: nn.Module, chosen: Collection[str], skip: Iterable[str]) -> str | None:
    """Return a line if less than 80 % of a network's weights are quantized; it names the largest others.

    Only tensors of two or more dimensions count as weights, so biases and normalization do not.

    Args:
        model: The network.
        chosen: Names of the quantized parameters.
        skip: Patterns of weights that stay float on purpose, which do not count.
    """
    model, skip = unwrap(model), as_patterns(skip)
    sizes = {name: parameter.numel() for name, parameter in named_parameters(model)}
    vectors = {name for name, parameter in named_parameters(model) if max(parameter.shape, default=1) == sizes[name]}
    others = [
        weight.name
        for weight in other_weights(model, layer_weights(model))
        if weight.name not in vectors.union(chosen) and not any(matches(pattern, weight.names) for pattern in skip)
    ]
    num_quantized, num_float = (sum(sizes[name] for name in names) for names in (chosen, others))
    if num_quantized >= _WANTED_SHARE * (num_quantized + num_float):
        return None
    others.sort(key=lambda name: -sizes[name])
    largest = ", ".join(f"{shown(name)} ({sizes[name]:,})" for name in others[:3]) + (", ..." if others[3:] else "")
    share = 100 * num_quantized / (num_quantized + num_float)
    return f"only {share:.1f} % of {num_quantized + num_float:,} weights are quantized; largest float ones: {largest}"


def check_used_as_stored(model: nn.Module, chosen: Collection[str], example: Any) -> None:
    """Refuse weights that a forward pass changes before it uses them.

    Args:
        model: The network.
        chosen: Names of the weights to quantize.
        example: Input of its forward, as for :func:`param_groups`.

    Raises:
        ValueError: A weight is changed; names it.
    """
    args, kwargs = ((), example) if isinstance(example, Mapping) else (example, None)
    model = unwrap(model)
    weights = {name: parameter for name, parameter in named_parameters(model) if name in chosen}
    found = transformed_weights(model, weights, args if isinstance(args, tuple) else (args,), kwargs)
    _check_refusals([Weight(name, (name,), CHANGED.format("the network")) for name in weights if name in found])


def _check_whole(model: nn.Module) -> None:
    """Refuse FSDP: one rank decides which weights of a tensor freeze, so it needs the whole tensor."""
    for path, module in model.named_modules():
        if any(cls.__name__ in _SHARDING for cls in type(module).__mro__):
            raise ValueError(
                f"{path or 'the network'} is sharded by FSDP: each rank holds only a part of its weights: "
                "use DistributedDataParallel instead"
            )


def _check_refusals(refused: list[Weight]) -> None:
    """Refuse weights to be quantized that would not be powers of two where the network uses them."""
    if refused:
        first, others = refused[0], len(refused) - 1
        more = f" (and {others} more)" if others else ""
        raise ValueError(
            f"{first.name} is {first.refusal}{more}: pass skip={[first.name]} (--skip {first.name}) to keep it float"
        )


def matches(pattern: str, names: Iterable[str]) -> bool:
    """Return whether a pattern matches one of a weight's names."""
    return any(fnmatchcase(name, pattern) for name in names)


def _bits_of(weight: Weight, weight_bits: int | None, skip: tuple[str, ...], bits: dict[str, int]) -> int | None:
    """Return the bits of a quantizable weight; None = float."""
    if any(matches(pattern, weight.names) for pattern in skip):
        return None
    exceptions = [num_bits for pattern, num_bits in bits.items() if matches(pattern, weight.names)]
    return exceptions[-1] if exceptions else weight_bits


def _check_bits(weight_bits: int | None, bits: dict[str, int]) -> None:
    """Refuse bits out of range; the message names the argument or pattern."""
    given = {f"bits[{pattern!r}]": num_bits for pattern, num_bits in bits.items()}
    if weight_bits is not None:
        given["weight_bits"] = weight_bits
    for what, num_bits in given.items():
        check_num_bits(num_bits, what)


def check_pattern(
    pattern: str, weights: list[Weight], what: str = "convolution or linear weight", also: Iterable[Weight] = ()
) -> None:
    """Refuse a pattern that matches neither a weight nor one of `also`; the message names similar weights."""
    if any(matches(pattern, weight.names) for weight in (*weights, *also)):
        return
    known = list(dict.fromkeys(name for weight in weights for name in weight.names))
    near = ", ".join(difflib.get_close_matches(pattern, known, n=3, cutoff=0.4) or known[:3])
    raise ValueError(f"the pattern {pattern!r} matches no {what}; nearest: {near or 'none'}")
