"""The table of layers: every parameter, its bits, and why it is float."""

import pytest
import torch
from torch import nn

from inq_ray.models.layers import LayerRow, LayerSum, describe, sums
from inq_ray.models.registry import create
from inq_ray.models.selection import param_groups
from inq_ray.models.shapes import without_data


@pytest.mark.parametrize("arch", ["resnet18", "convnext_tiny", "vit_b_16", "swin_t", "digits_cnn"])
def test_rows_say_what_param_groups_does(arch: str) -> None:
    with without_data():
        model = create(arch, num_classes=7)
    rows = describe(model, weight_bits=4)
    groups = param_groups(model, weight_bits=4)
    assert {row.name: row.bits for row in rows} == {name: g["weight_bits"] for g in groups for name, _ in g["params"]}
    assert [(row.name, row.shape) for row in rows] == [(n, tuple(p.shape)) for n, p in model.named_parameters()]
    assert all((row.bits is None) == bool(row.why_float) for row in rows)
    assert sum(entry.num_values for entry in sums(rows)) == sum(p.numel() for p in model.parameters())
    assert sum(entry.num_tensors for entry in sums(rows)) == len(rows)


class Everything(nn.Module):
    """One parameter for each reason."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 4))
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.positions = nn.Embedding(5, 4)
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.computed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4, bias=False))
        self.memory = nn.RNN(4, 4)
        self.head = nn.Linear(4, 2, bias=False)


def test_reasons() -> None:
    rows = describe(Everything(), 5, ["head", "computed"], {"conv": 3})
    assert {row.name: (row.module, row.bits or row.why_float) for row in rows} == {
        "token": ("Everything", "no layer's weight"),
        "conv.weight": ("Conv2d", 3),
        "conv.bias": ("Conv2d", "bias"),
        "norm.weight": ("BatchNorm2d", "normalization"),
        "norm.bias": ("BatchNorm2d", "normalization"),
        "positions.weight": ("Embedding", "embedding"),
        "attention.in_proj_weight": ("MultiheadAttention", 5),
        "attention.in_proj_bias": ("MultiheadAttention", "bias"),
        "attention.bias_k": ("MultiheadAttention", "bias"),
        "attention.bias_v": ("MultiheadAttention", "bias"),
        "attention.out_proj.weight": ("NonDynamicallyQuantizableLinear", 5),
        "attention.out_proj.bias": ("NonDynamicallyQuantizableLinear", "bias"),
        "computed.parametrizations.weight.original0": ("ParametrizationList", "computed"),
        "computed.parametrizations.weight.original1": ("ParametrizationList", "computed"),
        "memory.weight_ih_l0": ("RNN", "recurrent"),
        "memory.weight_hh_l0": ("RNN", "recurrent"),
        "memory.bias_ih_l0": ("RNN", "bias"),
        "memory.bias_hh_l0": ("RNN", "bias"),
        "head.weight": ("Linear", "skipped"),
    }


def test_without_bits_nothing_was_asked_for() -> None:
    rows = describe(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), None, bits={"1": 4})
    assert [row.bits or row.why_float for row in rows] == ["not asked for", "bias", 4, "bias"]


def test_sums_by_hand() -> None:
    rows = [
        LayerRow(name="a", module="Linear", shape=(2, 3), bits=None, why_float="skipped"),
        LayerRow(name="b", module="Linear", shape=(4, 3), bits=5, why_float=""),
        LayerRow(name="c", module="Linear", shape=(4,), bits=None, why_float="bias"),
        LayerRow(name="d", module="Linear", shape=(1, 1), bits=3, why_float=""),
        LayerRow(name="e", module="Linear", shape=(), bits=5, why_float=""),
    ]
    assert sums(rows) == (
        LayerSum(bits=3, why_float="", num_tensors=1, num_values=1),
        LayerSum(bits=5, why_float="", num_tensors=2, num_values=13),
        LayerSum(bits=None, why_float="skipped", num_tensors=1, num_values=6),
        LayerSum(bits=None, why_float="bias", num_tensors=1, num_values=4),
    )


def test_resnet18_by_the_papers_rule() -> None:
    with without_data():
        rows = describe(create("resnet18", num_classes=1000))
    by_reason = {entry.bits or entry.why_float: (entry.num_tensors, entry.num_values) for entry in sums(rows)}
    assert by_reason == {5: (21, 11_678_912), "normalization": (40, 9_600), "bias": (1, 1_000)}


def test_a_compiled_part_leaves_no_trace_and_mistakes_are_told() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0] = torch.compile(model[0])
    assert [(row.name, row.module) for row in describe(model)] == [("0.weight", "Linear"), ("0.bias", "Linear")]
    with pytest.raises(ValueError, match="matches no convolution or linear weight"):
        describe(model, skip=["1"])
