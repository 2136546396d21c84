"""What stays float unasked is said, and can be quantized or accepted by a pattern."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import inq_ray
from inq_ray.models.selection import param_groups


class Conv1D(nn.Module):
    """As transformers' GPT-2 has it: a linear layer whose weight is [in, out]."""

    def __init__(self, num_out: int, num_in: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(num_in, num_out)), nn.Parameter(torch.zeros(num_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(4, 8, 16)), nn.Parameter(torch.randn(4, 16, 8))


def names(groups: list[dict[str, object]]) -> list[str]:
    return [name for group in groups if group["weight_bits"] for name, _ in group["params"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("layer", "largest"),
    [
        (Conv1D(32, 32), ["weight"]),
        (nn.LSTM(8, 16), ["weight_hh_l0", "weight_ih_l0"]),
        (nn.GRU(8, 16), ["weight_hh_l0", "weight_ih_l0"]),
        (Experts(), ["up", "down"]),
        (nn.Bilinear(8, 8, 8), ["weight"]),
        (nn.Embedding(100, 8), ["weight"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_large_part_that_stays_float_is_said_and_can_be_quantized_or_skipped(
    layer: nn.Module, largest: list[str]
) -> None:
    model = nn.ModuleDict({"layer": layer, "head": nn.Linear(16, 2)})
    with pytest.warns(
        UserWarning, match=rf"only .* % of [\d,]+ weights .*'layer.{largest[0]}'.*include=.*skip="
    ) as said:
        assert names(param_groups(model, 4)) == ["head.weight"]
    assert all(f"'layer.{name}' (" in str(said[0].message) for name in largest)
    assert len(str(said[0].message)) <= 300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names(param_groups(model, 4, skip=["layer"])) == ["head.weight"]
        included = param_groups(model, 4, include=["layer"])
    assert sorted(names(included)) == sorted(["head.weight", *(f"layer.{name}" for name in largest)])


def test_included_weights_become_powers_of_two() -> None:
    model = nn.ModuleDict({"lstm": nn.LSTM(4, 4), "head": nn.Linear(4, 2)})
    scheduler = inq_ray.INQScheduler(inq_ray.SGD(param_groups(model, 4, include=["lstm"])), [1.0])
    scheduler.step()
    for name in ("lstm.weight_ih_l0", "lstm.weight_hh_l0", "head.weight"):
        weight = model.get_parameter(name).detach()
        assert bool((torch.frexp(weight[weight != 0].abs()).mantissa == 0.5).all())
    assert not any("bias" in name for name in scheduler.state)


def test_bits_and_skip_go_for_included_weights_too() -> None:
    model = nn.ModuleDict({"lstm": nn.LSTM(4, 4), "head": nn.Linear(4, 2)})
    groups = param_groups(model, 4, include=["lstm"], skip=["lstm.weight_hh*"], bits={"lstm": 3})
    assert {group["weight_bits"]: len(group["params"]) for group in groups} == {3: 1, 4: 1, None: 4}


@pytest.mark.parametrize("pattern", ["head", "norm", "nothing"])
def test_a_pattern_that_includes_nothing_new_is_refused(pattern: str) -> None:
    model = nn.ModuleDict({"lstm": nn.LSTM(4, 4), "norm": nn.LayerNorm(4), "head": nn.Linear(4, 2)})
    with pytest.raises(ValueError, match=rf"'{pattern}' matches no float tensor of two or more dimensions"):
        param_groups(model, include=[pattern])


def test_norms_and_biases_are_no_large_part() -> None:
    param_groups(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    param_groups(nn.Sequential(nn.Embedding(9, 9), nn.Linear(2, 2)), None)
