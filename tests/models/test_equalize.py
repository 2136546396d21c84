"""Channels scaled towards powers of two: the same function, and only where BatchNorm alone takes the output."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inq_ray.core.codebook import Codebook
from inq_ray.models.equalize import equalize
from inq_ray.models.registry import create
from inq_ray.models.selection import param_groups


def settled(model: nn.Module, shape: tuple[int, ...] = (8, 3, 8, 8)) -> nn.Module:
    """With statistics that are not those of a fresh network."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            module.running_var.uniform_(0.5, 2)
            assert module.running_mean is not None
            module.running_mean.normal_()
    with torch.no_grad():
        for param in model.parameters():
            param.mul_(torch.rand(len(param), *[1] * (param.dim() - 1)) * 3 + 0.2)
    return model


class Residual(nn.Module):
    """Three convolutions, of which one is also added to what BatchNorm makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.conv3, self.bn3 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.bn1(self.conv1(images)).relu()
        outputs = self.conv2(hidden)
        outputs = outputs + self.bn2(outputs)
        result: Tensor = self.bn3(self.conv3(outputs))
        return result


class Twice(nn.Module):
    """A convolution that is used twice, and a BatchNorm that is."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.bn1, self.bn2 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.conv1, self.conv2, self.shared_bn = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        images = self.bn1(self.shared(self.bn2(self.shared(images))))
        result: Tensor = self.shared_bn(self.conv2(self.shared_bn(self.conv1(images))))
        return result


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def tied() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.ReLU())
    model[2].weight = model[0].weight
    return model


def ahead() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 4, 1))


NETWORKS: dict[str, tuple[Any, list[str]]] = {
    "residual": (Residual, ["conv1.weight", "conv3.weight"]),
    "twice": (Twice, []),
    "flat": (flat, ["1.weight"]),
    "tied": (tied, []),
    "ahead": (ahead, []),
    "no statistics": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        ["0.weight"],
    ),
    "grouped": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6, affine=False)), ["0.weight"]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_only_layers_whose_output_batchnorm_alone_takes_are_scaled_and_outputs_stay(name: str) -> None:
    torch.manual_seed(0)
    make, due = NETWORKS[name]
    model = settled(make())
    images = torch.randn(8, 3, 8, 8)
    states = {key: value.clone() for key, value in model.state_dict().items()}
    outputs = {mode: model.train(mode)(images) for mode in (False, True)}
    model.load_state_dict(states)
    assert equalize(model, param_groups(model, 3), images) == due
    assert model.training
    weights = {key for key, value in model.state_dict().items() if not torch.equal(value, states[key])}
    assert {key for key in weights if key.endswith("weight")} == set(due)
    for mode, before in outputs.items():
        torch.testing.assert_close(model.train(mode)(images), before, rtol=1e-4, atol=1e-4)


def test_a_network_s_tensors_come_nearer_to_their_powers() -> None:
    torch.manual_seed(0)
    model = settled(create("cifar_resnet20", num_classes=10))
    groups = param_groups(model, 2)
    before = _error(groups)
    names = equalize(model, groups, torch.randn(2, 3, 32, 32), codebook="mse")
    assert len(names) == 19
    assert _error(groups) < 0.85 * before


def _error(groups: list[dict[str, Any]]) -> float:
    weights = [param.detach() for group in groups if group["weight_bits"] for _, param in group["params"]]
    errors = [
        (Codebook.for_weight(each, 2, "mse").quantize(each) - each).square().sum() / each.square().sum()
        for each in weights
    ]
    return float(torch.stack(errors).mean())


def test_what_stays_float_is_left_alone() -> None:
    model = settled(Residual())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert equalize(model, param_groups(model, 3, skip=["conv1"]), torch.randn(2, 3, 8, 8)) == ["conv3.weight"]
    same = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert {"conv1.weight", "conv1.bias", "bn1.running_mean", "bn1.running_var", "conv2.weight"} <= same


def test_a_channel_that_is_all_but_constant_is_left_alone() -> None:
    model = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    model[1].running_var[2] = 5e-5  # type: ignore[index, operator]
    before = model[0].weight.detach().clone()  # type: ignore[union-attr, operator]
    assert equalize(model, param_groups(model, 3), torch.randn(2, 3, 8, 8)) == ["0.weight"]
    same = [torch.equal(mine, its) for mine, its in zip(model[0].weight, before, strict=True)]  # type: ignore[arg-type]
    assert same == [False, False, True, False]


class Deceiving(nn.Module):
    """Uses a weight in a way that running it does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.bn(self.conv(images)) * self.conv.weight.mean()
        return result


def test_a_network_that_would_be_another_is_refused_and_left_as_it_was() -> None:
    model = settled(Deceiving())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"changed the network's outputs by .*: something uses"):
        equalize(model, param_groups(model, 3), torch.randn(2, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_the_paper_s_rule_is_refused() -> None:
    model = Residual()
    with pytest.raises(ValueError, match='pass codebook="weighted" or "mse"'):
        equalize(model, param_groups(model, 3), torch.randn(2, 3, 8, 8), codebook="max")
