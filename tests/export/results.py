"""Quantized networks for the tests of export."""

import torch
from torch import Tensor, nn

from inq_ray.core.channels import Per
from inq_ray.core.codebook import Levels
from inq_ray.core.stage import apply, decide
from inq_ray.core.state import TensorState


def quantized(
    num_bits: int = 5, dtype: torch.dtype = torch.float32, levels: Levels = "paper", per: Per = "tensor"
) -> tuple[nn.Sequential, dict[str, TensorState]]:
    """A small network of which every conv and linear weight is frozen; one weight tensor is all zero."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 10), nn.Linear(10, 4)
    ).to(dtype)
    network = network.to(memory_format=torch.channels_last)
    nn.init.zeros_(network.get_parameter("4.weight"))
    states: dict[str, TensorState] = {}
    for name in ("0.weight", "3.weight", "4.weight"):
        weight = network.get_parameter(name)
        states[name] = TensorState.live(weight, num_bits, levels, per)
        apply(weight, states[name], decide(weight, states[name], 1.0, name=name, strategy="pruning", seed=0, stage=0))
    return network, states


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal in dtype, shape and every bit."""
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(*bits)
