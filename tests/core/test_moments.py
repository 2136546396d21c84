"""Moments of inputs: a layer's rows times its unfolded inputs are its outputs."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inq_ray.core.convolution_moments import ConvolutionMoments
from inq_ray.core.moments import Layer, Moments, layers_of

CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(5, 3, bias=False), (2, 4, 5)),
    "linear of a vector": (nn.Linear(5, 3, bias=False), (5,)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2, bias=False), (2, 4, 9)),
    "conv2d": (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), bias=False), (2, 3, 7, 8)),
    "depthwise": (nn.Conv2d(6, 12, 3, groups=6, padding="same", bias=False), (2, 6, 5, 5)),
    "without a batch": (nn.Conv2d(3, 4, 3, bias=False), (3, 5, 5)),
    "circular": (nn.Conv2d(3, 4, 3, padding=2, padding_mode="circular", bias=False), (2, 3, 5, 6)),
    "conv3d": (nn.Conv3d(2, 4, (2, 3, 1), groups=2, dilation=(2, 1, 1), bias=False), (2, 2, 5, 4, 3)),
}


LARGE_CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "border on all sides": (nn.Conv2d(32, 4, 3, padding=1, bias=False), (2, 32, 2, 1)),
    "stride": (nn.Conv2d(32, 4, (3, 2), stride=(2, 3), padding=(1, 0), bias=False), (2, 32, 7, 8)),
    "dilation": (nn.Conv2d(32, 4, (3, 5), stride=2, padding=(3, 4), dilation=(3, 2), bias=False), (2, 32, 9, 12)),
    "same": (nn.Conv2d(32, 4, (4, 3), padding="same", dilation=(1, 2), bias=False), (2, 32, 6, 5)),
    "reflected, no batch": (nn.Conv2d(32, 4, 3, padding=2, padding_mode="reflect", bias=False), (32, 5, 6)),
    "wide conv1d": (nn.Conv1d(33, 2, 7, stride=3, padding=3, bias=False), (3, 33, 11)),
    "wide conv3d": (nn.Conv3d(32, 2, (2, 3, 1), padding=1, bias=False), (1, 32, 3, 4, 2)),
}


def run(module: nn.Module, *inputs: Tensor, **named: Tensor) -> tuple[Layer, Tensor, Moments]:
    """Return the layer, its unfolded inputs, and its moments."""
    params = dict(module.named_parameters())
    layers, _ = layers_of(module, params)
    layer = next(iter(layers.values()))
    moments = Moments(module, params)
    with moments:
        for _ in range(2):
            module(*inputs, **named)
    module(*inputs, **named)  # not counted
    return layer, torch.cat(layer.rows_of_inputs(inputs, named), dim=1), moments


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("case", [*CASES, *LARGE_CASES])
@pytest.mark.parametrize("most", [1 << 25, 60])
def test_rows_times_inputs_are_outputs(case: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inq_ray.core.moments._MOST_VALUES", most)
    module, shape = (CASES | LARGE_CASES)[case]
    assert (case in LARGE_CASES) == ConvolutionMoments.suits(module)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    layer, inputs, moments = run(module, x)
    outputs = layer.rows(layer.weight) @ inputs.transpose(1, 2)  # [groups, rows, samples]
    expected = module(x)
    if isinstance(module, nn.Linear):
        expected = expected.reshape(-1, expected.shape[-1]).T.unsqueeze(0)
    else:
        expected = expected if x.dim() == layer.weight.dim() else expected.unsqueeze(0)
        expected = expected.transpose(0, 1).reshape(layer.groups, len(layer.weight) // layer.groups, -1)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    mean = inputs.double().transpose(1, 2) @ inputs.double() / inputs.shape[1]
    found = moments.of("weight")
    assert found is not None
    torch.testing.assert_close(found, mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_self", [True, False])
def test_attention_has_three_groups(is_self: bool) -> None:
    module = nn.MultiheadAttention(4, 2, batch_first=True, bias=False)
    query, key, value = (torch.randn(2, length, 4) for length in (3, 3, 3))
    key, value = (query, query) if is_self else (key, value)
    layer, inputs, moments = run(module, query, key, value=value)
    assert (layer.key, inputs.shape) == ("in_proj_weight", (3, 6, 4))
    assert torch.equal(inputs[2], value.reshape(-1, 4))
    assert moments.left_out.keys() == {"out_proj.weight"}


def test_cross_attention_may_have_fewer_queries_than_keys() -> None:
    module = nn.MultiheadAttention(4, 2, batch_first=True, bias=False)
    query, key = torch.randn(2, 3, 4), torch.randn(2, 7, 4)
    _, _, moments = run(module, query, key, key)
    sums = moments.sums["in_proj_weight"]
    for found, given in zip(sums, (query, key, key), strict=True):
        rows = given.reshape(-1, 4).double()
        torch.testing.assert_close(found, 2 * rows.T @ rows, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_layers", [2, 3])
def test_what_has_no_moments_is_named(num_layers: int) -> None:
    tied = nn.Linear(4, 4)
    model = nn.Sequential(tied, nn.Linear(4, 4), nn.ConvTranspose1d(2, 3, 2), nn.LSTM(2, 2), nn.Linear(9000, 1))
    for _ in range(num_layers - 1):
        model.append(nn.Linear(4, 4))
        model[-1].weight = tied.weight
    reasons = layers_of(model, dict(model.named_parameters()))[1]
    expected: dict[str, Any] = {
        "0.weight": "shared by several",
        "2.weight": "transposed",
        "3.weight_hh_l0": "not a weight that LSTM",
        "4.weight": "9000 inputs, more than 8192",
        "0.bias": "not a weight that Linear",
    }
    for name, reason in expected.items():
        assert reason in reasons[name]


@pytest.mark.parametrize("is_in_place", [False, True])
def test_layers_of_a_compiled_network_are_called(is_in_place: bool) -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    if is_in_place:
        network.compile(backend="eager")
    compiled = network if is_in_place else torch.compile(network, backend="eager")
    images = torch.ones(2, 4)
    compiled(images)  # from here on hooks of layers would have no effect
    with Moments(network, dict(network.named_parameters())) as moments:
        compiled(images)
    assert moments.counts == {"0.weight": 2}


def test_layers_that_were_not_called_are_named() -> None:
    network = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3, bias=False)])
    moments = Moments(network, {"0.weight": network[0].weight, "1.weight": network[1].weight})
    with moments:
        network[0](torch.ones(2, 4))
    assert moments.left_out == {"1.weight": "was not called with any image"}
    with moments:
        network[1](torch.ones(2, 4))
    assert not moments.left_out
