"""A small network with random images, ready to be measured."""

from typing import Any

import torch
from torch import Tensor, nn

from inq_ray.sensitivity.probe import Probe, Rounding

BITS = {"0.weight": 3, "4.weight": 2}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(54, 4))
    return layers.eval()


def images(count: int = 40) -> Tensor:
    return torch.randn(count, 1, 5, 5, generator=torch.Generator().manual_seed(1))


def probe_of(model: nn.Module, **rounding: Any) -> Probe:
    params = {name: param for name, param in model.named_parameters() if param.dim() > 1}
    labels = torch.arange(40) % 4
    return Probe(model, params, lambda: images().split(15), labels, Rounding(**rounding))
