"""Exact weights from codes."""

import warnings
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from inq_ray.core.channels import AnyCodebook
from inq_ray.core.owners import shown
from inq_ray.core.state import TensorState


class HasState(Protocol):
    """An object with the states of weight tensors, such as :class:`inq_ray.INQScheduler`."""

    state: dict[str, TensorState]


@runtime_checkable
class KnowsNetwork(Protocol):
    """An object that also has the network of these states, such as :class:`inq_ray.INQScheduler`."""

    def changed_weights(self) -> dict[str, int]:
        """Return the number of frozen weights that differ from their level, by parameter name."""


def float_state(states: HasState | Mapping[str, TensorState], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return each quantized weight tensor, 0 or ±2^k with n_2 <= k <= n_1, computed from codes and codebook alone.

    Args:
        states: An :class:`inq_ray.INQScheduler` with every weight frozen, or its ``state``.
        dtype: Floating dtype of the result, which must represent all levels exactly.

    Returns:
        Tensors by parameter name, with the codes' shape and device; bit for bit the network's after the last stage.

    Raises:
        ValueError: A weight is still live, or `dtype` cannot represent a level; names the tensor. Or `states` is
            something else.

    Warns:
        UserWarning: The network of the INQScheduler has other weights, because something else changed them.

    Examples:
        >>> import inq_ray
        >>> layer = torch.nn.Linear(3, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.9, -0.3, 0.01]]))
        >>> scheduler = inq_ray.INQScheduler(inq_ray.SGD(inq_ray.param_groups(layer, weight_bits=3)), [1.0])
        >>> scheduler.step()
        >>> float_state(scheduler)
        {'weight': tensor([[ 1.0000, -0.5000,  0.0000]])}
    """
    changed = states.changed_weights() if isinstance(states, KnowsNetwork) else {}
    if changed:
        warnings.warn(
            f"the network has other weights than these: {sum(changed.values()):,} frozen ones, first in "
            f"{shown(next(iter(changed)))}, were changed by something other than inq_ray.SGD; load these into it "
            "with model.load_state_dict(..., strict=False) before you save it",
            stacklevel=2,
        )
    states = states_of(states)
    weights: dict[str, Tensor] = {}
    for name, state in states.items():
        num_live = state.frozen.numel() - state.num_frozen
        if num_live:
            raise ValueError(
                f"{num_live} of {state.frozen.numel()} weights of {name!r} are still live: step the scheduler to the "
                "portion 1.0 first"
            )
        check_exact(name, state.codebook, state.codes, dtype)
        weights[name] = state.codebook.decode(state.codes, dtype)
    return weights


def states_of(states: object) -> Mapping[str, TensorState]:
    """Return the states themselves, or those of an INQScheduler.

    Raises:
        ValueError: It is neither.
    """
    states = getattr(states, "state", states)
    if not isinstance(states, Mapping) or not all(isinstance(state, TensorState) for state in states.values()):
        raise ValueError(
            f"expected an INQScheduler or its scheduler.state, got {type(states).__name__}; load a state_dict() into "
            "an INQScheduler first"
        )
    return states


def check_exact(name: str, codebook: AnyCodebook, codes: Tensor, dtype: torch.dtype) -> None:
    """Check that every level that a tensor uses is exact in `dtype`.

    Raises:
        ValueError: A level is not; names the tensor.
    """
    if not dtype.is_floating_point:
        raise ValueError(f"weights need a floating dtype such as torch.float32, got {dtype=}")
    levels = torch.tensor([level for _, level in codebook.used(codes)], dtype=torch.float64)
    inexact = levels[levels.to(dtype).double() != levels]
    if inexact.numel():
        raise ValueError(f"{dtype} cannot represent {float(inexact[0])!r}, a weight of {name!r}: use a wider dtype")
