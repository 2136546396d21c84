"""Weights that a network changes before it uses them are found, by whatever class; others are let through."""

from typing import Any

import pytest
import torch
import torch.ao.nn.qat as qat
from torch import Tensor, nn
from torch.ao.quantization import get_default_qat_qconfig
from torch.nn import functional

from inq_ray.models.selection import param_groups
from inq_ray.models.used_weights import is_transformed, transformed_weights


class Standardized(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, (self.weight - self.weight.mean()) / self.weight.std(), self.bias)


class FakeQuantized(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().amax(1, keepdim=True) / 7
        rounded = (self.weight / scale).round() * scale
        return functional.linear(x, self.weight + (rounded - self.weight).detach(), self.bias)


class Equalized(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * 0.3, self.bias)


class Renormalized(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.01)
        return super().forward(x)


class RenormalizedInPlace(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        self.weight.data.renorm_(2, 0, 0.01)
        return super().forward(x)


class MaskedByOnes(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        self.weight.data *= 1.0
        return super().forward(x)


class Transposed(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class InBfloat16(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.bfloat16(), self.weight.bfloat16()).to(x.dtype)


class Penalized(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        self.penalty = (self.weight @ self.weight.T).norm()
        return super().forward(x)


class Concatenated(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, torch.cat([self.weight, self.weight]))


class OfOtherInputs(nn.Linear):
    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return super().forward(x) * scale


QAT = {"qconfig": get_default_qat_qconfig("x86")}


@pytest.mark.parametrize(
    "layer",
    [
        Standardized(3, 4, 3, padding=1),
        FakeQuantized(4, 3),
        Equalized(4, 3),
        Renormalized(3, 4, 3),
        RenormalizedInPlace(3, 4, 3),
        qat.Conv2d(3, 4, 3, **QAT),
        qat.Linear(4, 3, **QAT),
    ],
    ids=lambda layer: type(layer).__module__ + type(layer).__name__,
)
def test_a_layer_that_changes_its_weight_is_refused_by_name(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), layer)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    with pytest.raises(
        ValueError, match=rf"1\.weight is changed in forward of {type(layer).__name__} .*--skip 1\.weight"
    ):
        param_groups(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [group["weight_bits"] for group in param_groups(model, skip=["1"])] == [5, None]


@pytest.mark.parametrize(
    "layer",
    [
        MaskedByOnes(3, 4, 3),
        Transposed(4, 3),
        InBfloat16(4, 3),
        Penalized(4, 3),
        Concatenated(4, 3),
        OfOtherInputs(4, 3),
        nn.Linear(4, 3),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_that_uses_its_weight_as_it_is_stored_is_let_through(layer: nn.Module) -> None:
    assert not is_transformed(layer, "weight")


class ScaledByParent(nn.Module):
    """Torch's own layer, but the module around it changes what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, gain: float = 0.3) -> Tensor:
        return functional.linear(self.first(x), self.second.weight * gain)


@pytest.mark.parametrize("example", [torch.ones(2, 4), (torch.ones(2, 4), 0.3), {"x": torch.ones(2, 4)}], ids=str)
def test_an_example_shows_what_the_network_changes(example: Any) -> None:
    model = ScaledByParent()
    param_groups(model)
    with pytest.raises(ValueError, match=r"second\.weight is changed in forward of the network"):
        param_groups(model, example=example)
    assert len(param_groups(model, skip=["second"], example=example)) == 2


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (nn.TransformerEncoderLayer(8, 2, batch_first=True), (torch.ones(2, 3, 8),)),
        (nn.MultiheadAttention(8, 2), (torch.ones(2, 3, 8),) * 3),
        (nn.LSTM(8, 8, 2), (torch.ones(2, 3, 8),)),
        (nn.GRU(8, 8), (torch.ones(2, 3, 8),)),
        (nn.Bilinear(4, 4, 4), (torch.ones(2, 4),) * 2),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)),
            (torch.ones(2, 3, 4, 4),),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_torchs_own_layers_use_their_weights_as_they_are(
    model: nn.Module, inputs: tuple[Tensor, ...], is_training: bool
) -> None:
    weights = {name: param for name, param in model.named_parameters() if param.dim() > 1}
    assert not transformed_weights(model.train(is_training), weights, inputs)
