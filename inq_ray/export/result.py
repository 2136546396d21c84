"""A result: a network, what INQ remembers of it, and what recipients should know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from inq_ray.core.state import TensorState
from inq_ray.export.level_check import fault
from inq_ray.files.shown import quoted


@dataclass(frozen=True)
class Result:
    """What is written to files.

    Attributes:
        model_state: `model.state_dict()` of the unwrapped model, on any device.
        states: States by parameter name, with every weight frozen.
        facts: What recipients should know of it, as values that JSON has; docs/format.md names those of a run.

    Raises:
        ValueError: A weight is still live or not what its code stands for, a tensor of `states` is not in `model_state`
            in its shape, or something in that is no tensor.
    """

    model_state: Mapping[str, Tensor]
    states: Mapping[str, TensorState]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self.model_state, self.states)


def _check(model_state: Mapping[str, Any], states: Mapping[str, TensorState]) -> None:
    for name, state in states.items():
        if state.num_frozen != state.frozen.numel():
            raise ValueError(f"{state.frozen.numel() - state.num_frozen} weights of {name!r} are still live")
        if name not in model_state or model_state[name].shape != state.codes.shape:
            raise ValueError(
                f"{name!r} of shape {list(state.codes.shape)} is not in the model's state: give state_dict() of the "
                "network inside DDP or torch.compile"
            )
        if reason := fault(name, model_state[name].detach().cpu(), state.codebook, state.codes.cpu()):
            raise ValueError(
                f"{quoted(name)} is not what its codes stand for ({reason}): load nothing into the network after the "
                "last stage; float_state(scheduler.state) has its weights"
            )
    odd = [name for name, value in model_state.items() if not isinstance(value, Tensor)]
    if odd:
        raise ValueError(f"{odd[0]!r} of the model's state is no tensor, and files take tensors alone: leave it out")
