"""A teacher whose weights are cast once says the same bits as one whose weights are cast at each call."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from inq_ray.models.registry import create
from inq_ray.training.task import autocast_cache as bf16_network
from inq_ray.training.task.autocast_cache import Bf16Network, with_cast_weights
from tests.training.runs import needs_digits, run_here, tiny_config


def under_autocast(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs: Tensor = model(inputs)
    return outputs.float()


def dtypes_of(model: nn.Module) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("arch", "shape"),
    [
        ("digits_cnn", (7, 1, 8, 8)),
        ("cifar_resnet20", (5, 3, 32, 32)),
        ("mobilenet_v3_small", (2, 3, 64, 64)),
        ("swin_t", (1, 3, 64, 64)),
    ],
)
def test_the_same_bits(arch: str, shape: tuple[int, ...], memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    model = create(arch, num_classes=10, in_channels=shape[1]).requires_grad_(False).eval()
    model = model.to(memory_format=memory_format)  # type: ignore[call-overload]
    network = Bf16Network(model)
    for _ in range(3):
        inputs = torch.randn(shape).contiguous(memory_format=memory_format)
        assert torch.equal(network(inputs).view(torch.int32), under_autocast(model, inputs).view(torch.int32))
    assert network._called is not model, "weights were cast at each call"
    assert torch.bfloat16 not in dtypes_of(model).values()


def test_convolutions_and_linear_layers_are_cast_and_nothing_else() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3), nn.LayerNorm(3))
    assert {name for name, dtype in dtypes_of(with_cast_weights(model)).items() if dtype is torch.bfloat16} == {
        "0.weight", "0.bias", "3.weight", "3.bias"
    }  # fmt: skip


class Tied(nn.Module):
    """An embedding is looked up in float32, so what it shares has to stay so."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 5)
        self.linear = nn.Linear(5, 5)
        self.linear.weight = self.embedding.weight

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs) + self.embedding.weight.sum(0)
        return outputs


class Normalized(nn.Module):
    """Uses a layer's weight for more than the layer does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs) * self.linear.weight.norm(dim=1)
        return outputs


@pytest.mark.parametrize("make", [Tied, Normalized])
def test_a_network_that_does_more_with_its_weights_has_the_same_bits_too(make: type[nn.Module]) -> None:
    torch.manual_seed(1)
    model, inputs = make().eval(), torch.randn(6, 5)
    network = Bf16Network(model)
    for _ in range(2):
        assert torch.equal(network(inputs), under_autocast(model, inputs))
    assert (network._called is model) == (make is Normalized)


@needs_digits
def test_a_distilled_run_has_the_digest_of_weights_that_are_cast_at_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"float_epochs": 1, "epochs": 1, "distill": True}
    cast = run_here(tiny_config(tmp_path, "cast", training=training)).summary["digest"]
    monkeypatch.setattr(bf16_network, "with_cast_weights", lambda model: model)
    assert run_here(tiny_config(tmp_path, "as_ever", training=training)).summary["digest"] == cast
