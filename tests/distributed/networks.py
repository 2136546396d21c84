"""A small network with its INQ state, in which the tests let one rank differ."""

import torch
from torch import Tensor, nn

from inq_ray.core.stage import StageUpdate, apply, decide
from inq_ray.core.state import TensorState
from inq_ray.distributed.digest import state_tensors

PORTIONS = (0.5, 0.75, 0.875, 1.0)
NUM_BITS = {"0.weight": 5, "3.weight": 3}


def make_network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 4 * 4, 10))


def make_states(network: nn.Module) -> dict[str, TensorState]:
    return {name: TensorState.live(network.get_parameter(name), num_bits) for name, num_bits in NUM_BITS.items()}


def decide_all(network: nn.Module, states: dict[str, TensorState], stage: int) -> dict[str, StageUpdate]:
    return {
        name: decide(
            network.get_parameter(name), state, PORTIONS[stage], name=name, strategy="pruning", seed=0, stage=stage
        )
        for name, state in states.items()
    }


def apply_all(network: nn.Module, states: dict[str, TensorState], updates: dict[str, StageUpdate]) -> None:
    for name, update in updates.items():
        apply(network.get_parameter(name), states[name], update)


def all_tensors(network: nn.Module, states: dict[str, TensorState]) -> dict[str, Tensor]:
    return {**network.state_dict(), **state_tensors(states)}


def retrain(network: nn.Module, states: dict[str, TensorState]) -> None:
    """Stands for training: moves the live weights, alike wherever it is called."""
    with torch.no_grad():
        for name, state in states.items():
            weight = network.get_parameter(name)
            weight.copy_(torch.where(state.frozen, weight, weight * 1.25 + 0.001))
