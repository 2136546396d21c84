"""Quantization without training: levels, what it keeps, and how little outputs change."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inq_ray
from inq_ray.core.channels import PERS, Per
from inq_ray.core.codebook import LEVELS, Levels
from inq_ray.export.float_state import float_state
from inq_ray.post_training import PostTraining, quantize_
from tests.core.weights import bits as bits_of


class Network(nn.Module):
    """A residual network with most of what layers can be: groups, a bias, attention, something tied and uncalled."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.depthwise_norm = nn.BatchNorm2d(8)
        self.read_twice = nn.Conv2d(8, 8, 1, bias=False)
        self.read_norm = nn.BatchNorm2d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)
        self.uncalled = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = x + torch.relu(self.depthwise_norm(self.depthwise(x)))
        read = self.read_twice(x)
        x = torch.relu(self.read_norm(read) + read)
        tokens = x.flatten(2).mT
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        logits: Tensor = self.head(tokens.mean(1))
        return logits


def make(seed: int = 0) -> tuple[Network, Tensor, Tensor]:
    """Return a network with statistics of its own, images to quantize by, and others."""
    torch.manual_seed(seed)
    network, images = Network(), torch.randn(160, 3, 6, 6)
    images = images + images.roll(1, dims=2) + images.roll(1, dims=3)
    for _ in range(30):
        network(images)
    return network.eval(), images[:80], images[80:]


def relative_error(network: nn.Module, expected: Tensor, images: Tensor) -> float:
    with torch.no_grad():
        change = network(images) - expected
    return float(change.square().sum() / (expected - expected.mean(0)).square().sum())


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("per", PERS)
@pytest.mark.parametrize("num_bits", [2, 3, 5])
def test_every_weight_is_a_level_and_the_rest_stays(num_bits: int, levels: Levels, per: Per) -> None:
    network, images, _ = make()
    before = copy.deepcopy(network.state_dict())
    network.train()
    done = quantize_(network, images, num_bits, levels=levels, codebook_per=per)
    assert isinstance(done, PostTraining)
    assert network.training
    assert done.num_images == len(images)
    state = network.state_dict()
    for name, weight in float_state(done).items():
        assert bits_of(weight) == bits_of(state[name])
        assert set(weight.reshape(-1).tolist()) <= set(done.state[name].codebook.values())
    adjusted = ("running_mean", "running_var", "bias")
    for name in before.keys() - done.state.keys():
        if not name.endswith(adjusted) or name.startswith("uncalled"):
            assert torch.equal(before[name], state[name]), name
    assert done.left_out.keys() == {"attention.out_proj.weight", "uncalled.weight"}
    assert done.errors.keys() == done.state.keys() - done.left_out.keys()


def test_outputs_change_less_than_by_rounding_alone_and_less_at_more_bits() -> None:
    network, images, others = make()
    expected = network(others).detach()
    errors = {}
    for num_bits in (2, 3, 5):
        rounded, quantized = copy.deepcopy(network), copy.deepcopy(network)
        scheduler = inq_ray.INQScheduler(
            inq_ray.SGD(inq_ray.param_groups(rounded, num_bits, levels="full")), [1.0], codebook="mse"
        )
        scheduler.step()
        quantize_(quantized, images, num_bits, levels="full")
        errors[num_bits] = relative_error(quantized, expected, others)
        assert errors[num_bits] < 0.8 * relative_error(rounded, expected, others)
    assert errors[5] < errors[3] < errors[2]


@pytest.mark.parametrize("num_bits", [2, 4])
def test_zeros_of_a_pruned_network_stay(num_bits: int) -> None:
    network, images, others = make()
    with torch.no_grad():
        for param in network.parameters():
            if param.dim() > 1:
                param.mul_(param.abs() > param.abs().quantile(0.4))
    expected = network(others).detach()
    zeros = {name: param == 0 for name, param in network.named_parameters()}
    pruned = copy.deepcopy(network)
    done = quantize_(network, images, num_bits, levels="full", keep_zeros=True)
    for name in done.state:
        assert not bool(network.get_parameter(name)[zeros[name]].any())
    quantize_(pruned, images, num_bits, levels="full")
    assert any(bool(pruned.get_parameter(name)[zeros[name]].any()) for name in done.state)
    if num_bits == 4:
        assert relative_error(network, expected, others) < 0.2


def test_a_network_that_has_levels_already_stays_as_it_is() -> None:
    network, images, others = make()
    quantize_(network, images, 5)
    expected = network(others).detach()
    quantize_(network, images, 5, levels="full")
    assert relative_error(network, expected, others) < 1e-3


def test_batches_of_a_loader_are_as_good_as_a_tensor() -> None:
    network, images, _ = make()
    other = copy.deepcopy(network)
    quantize_(network, images, 3)
    quantize_(other, [(batch, torch.zeros(len(batch))) for batch in torch.split(images, 128)], 3)
    for one, two in zip(network.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_a_network_in_bfloat16_is_quantized_too() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5)).bfloat16()
    inputs = torch.rand(300, 64) + 2  # with so large a mean, bfloat16's moments are not positive definite
    expected = network(inputs.bfloat16()).detach()
    done = quantize_(network, inputs, 5)
    assert relative_error(network, expected, inputs.bfloat16()) < 0.05
    for name, each in done.state.items():
        assert torch.equal(network.get_parameter(name), each.codebook.decode(each.codes, torch.bfloat16))


@pytest.mark.parametrize("images", [[], torch.zeros(0, 3, 6, 6), [torch.zeros(0, 3, 6, 6)]])
def test_without_images_it_is_refused(images: Any) -> None:
    network, _, _ = make()
    with pytest.raises(ValueError, match="needs images"):
        quantize_(network, images)
    with pytest.raises(ValueError, match="got a batch of str"):
        quantize_(network, ["a path"])


def test_images_that_are_nan_are_refused() -> None:
    network, images, _ = make()
    images[3, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="images contain NaN"):
        quantize_(network, images)


@pytest.mark.parametrize("seed", range(5))
def test_inputs_that_never_vary_are_no_error(seed: int) -> None:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(48, 64), nn.Tanh(), nn.Linear(64, 48))
    expected = network(image := 100 * torch.rand(1, 48)).detach()
    done = quantize_(network, image)  # one image: the covariance of a layer's inputs is rounding noise
    assert all(bool(state.frozen.all()) for state in done.state.values())
    torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-3)


def test_a_compiled_layer_is_quantized_by_its_inputs() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    network[2].compile(backend="eager")
    images = torch.randn(64, 8)
    with torch.no_grad():
        network(images)  # from here on hooks of the layer would have no effect
    assert not quantize_(network, images).left_out


def test_weights_that_are_nan_are_named() -> None:
    network, images, _ = make()
    with torch.no_grad():
        network.head.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"head.weight: weights are NaN or infinite"):
        quantize_(network, images)
