"""A result: a network, its INQ state, and facts for recipients."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from inq_ray.core.state import TensorState
from inq_ray.export.level_check import fault
from inq_ray.files.shown import quoted


@dataclass(frozen=True)
class Result:
    """A result to write to files.

    Attributes:
        model_state: `model.state_dict()` of the unwrapped model, on any device.
        states: States by parameter name, with every weight frozen.
        facts: Facts for recipients, as JSON values; docs/format.md names those of a run.

    Raises:
        ValueError: A weight is still live or differs from its code, a tensor of `states` is not in `model_state` with
            its shape, or something in `model_state` is not a tensor.
    """

    model_state: Mapping[str, Tensor]
    states: Mapping[str, TensorState]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self.model_state, self.states)


def _check(model_state: Mapping[str, Any], states: Mapping[str, TensorState]) -> None:
    for name, state in states.items():
        if state.num_frozen != state.frozen.numel():
            num_live = state.frozen.numel() - state.num_frozen
            raise ValueError(f"{num_live} weights of {quoted(name)} are still live: run the remaining stages first")
        if name not in model_state or model_state[name].shape != state.codes.shape:
            raise ValueError(
                f"{name!r} of shape {list(state.codes.shape)} is not in the model's state: pass state_dict() of the "
                "network inside DDP or torch.compile"
            )
        if reason := fault(name, model_state[name].detach().cpu(), state.codebook, state.codes.cpu()):
            raise ValueError(
                f"{quoted(name)} differs from its codes ({reason}): load nothing into the network after the "
                "last stage; float_state(scheduler.state) has its weights"
            )
    odd = [name for name, value in model_state.items() if not isinstance(value, Tensor)]
    if odd:
        raise ValueError(f"{odd[0]!r} of the model's state is not a tensor, and files have tensors only: leave it out")
