"""What is quantized: by module type, never by name; patterns; shared, wrapped, lazy and computed weights."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from inq_ray.models.registry import create
from inq_ray.models.selection import param_groups

# Networks of a few weights, of which many stay float.
pytestmark = pytest.mark.filterwarnings("ignore:only .* weights are quantized")

Groups = list[dict[str, Any]]


def names_by_bits(groups: Groups) -> dict[int | None, list[str]]:
    assert all(group["params"] for group in groups)
    return {group["weight_bits"]: [name for name, _ in group["params"]] for group in groups}


def quantized(model: nn.Module, **options: Any) -> Mapping[str, int]:
    return {n: bits for bits, names in names_by_bits(param_groups(model, **options)).items() if bits for n in names}


class Tied(nn.Module):
    """A linear layer that shares its weight with an embedding, and two that share one with each other."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.decoder = nn.Linear(4, 10, bias=False)
        self.decoder.weight = self.embedding.weight


class Named(nn.Module):
    """Names that a rule by substrings would fall for."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.Conv2d(3, 4, 1)
        self.bias = nn.Linear(4, 4)
        self.conv = nn.BatchNorm2d(4)
        self.linear = nn.LayerNorm(4)
        self.weight = nn.Parameter(torch.ones(4, 4))


@pytest.mark.parametrize("arch", ["resnet18", "vgg16_bn", "mobilenet_v2", "resnet50"])
def test_exactly_the_weights_of_convolutions_and_linear_layers(arch: str) -> None:
    """Fault 4 of the port was to skip by the substrings "bn" and "bias", which many of BatchNorm's scales lack."""
    with torch.device("meta"):
        model = create(arch, num_classes=10)
    layers = (nn.Conv2d, nn.Linear)
    expected = [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, layers)]
    groups = names_by_bits(param_groups(model))
    assert list(groups) == [5, None]
    assert groups[5] == expected
    assert sorted(groups[5] + groups[None]) == sorted(name for name, _ in model.named_parameters())


def test_modules_count_and_names_do_not() -> None:
    assert quantized(Named()) == {"bn.weight": 5, "bias.weight": 5}


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(2, 2, 1),
        nn.Conv2d(2, 2, 1),
        nn.Conv3d(2, 2, 1),
        nn.ConvTranspose1d(2, 2, 1),
        nn.ConvTranspose2d(2, 2, 1),
        nn.ConvTranspose3d(2, 2, 1),
        nn.Linear(2, 2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_all_dimensions_and_transposed(layer: nn.Module) -> None:
    assert names_by_bits(param_groups(layer)) == {5: ["weight"], None: ["bias"]}


@pytest.mark.parametrize(
    "layer",
    [nn.Embedding(3, 2), nn.EmbeddingBag(3, 2), nn.LayerNorm(2), nn.Bilinear(2, 2, 2), nn.PReLU(), nn.GRU(2, 2)],
)
def test_other_modules_stay_float(layer: nn.Module) -> None:
    model = nn.ModuleDict({"layer": layer, "linear": nn.Linear(2, 2)})
    assert list(quantized(model)) == ["linear.weight"]


def test_attention_quantizes_what_it_projects_with() -> None:
    """The rule of the module's docstring: in-projections are weights of linear layers under other names."""
    together = nn.MultiheadAttention(4, 2, add_bias_kv=True)
    assert quantized(together) == {"in_proj_weight": 5, "out_proj.weight": 5}
    assert set(names_by_bits(param_groups(together))[None]) == {"in_proj_bias", "bias_k", "bias_v", "out_proj.bias"}
    apart = nn.MultiheadAttention(4, 2, kdim=6, vdim=8, bias=False)
    assert list(quantized(apart)) == ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]


def test_patterns_meet_in_projections() -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "linear": nn.Linear(4, 4)})
    assert list(quantized(model, skip=["*.in_proj_weight"])) == ["attention.out_proj.weight", "linear.weight"]
    assert list(quantized(model, skip=["attention"])) == ["linear.weight"]
    assert quantized(model, bits={"attention": 4})["attention.in_proj_weight"] == 4
    with pytest.raises(ValueError, match=r"nearest: attention\.in_proj_weight"):
        param_groups(model, skip=["attention.in_proj_weights"])


def test_shared_weights_once_and_tied_to_an_embedding_float() -> None:
    assert names_by_bits(param_groups(Tied())) == {5: ["first.weight"], None: ["embedding.weight"]}


@pytest.mark.parametrize("pattern", ["second", "second.weight", "first"])
def test_a_pattern_meets_every_name_of_a_shared_weight(pattern: str) -> None:
    assert quantized(Tied(), bits={pattern: 3}) == {"first.weight": 3}


def test_groups_are_what_torch_optimizers_take() -> None:
    model = create("digits_cnn", num_classes=10, in_channels=1)
    optimizer = torch.optim.SGD(param_groups(model, bits={"classifier": 8}), lr=0.1)
    assert [group["weight_bits"] for group in optimizer.param_groups] == [5, 8, None]
    assert optimizer.param_groups[1]["param_names"] == ["classifier.weight"]


def test_wrappers_leave_no_trace_in_names() -> None:
    model = create("digits_cnn", num_classes=10, in_channels=1)
    plain = names_by_bits(param_groups(model))
    wrapped = nn.DataParallel(torch.compile(model))  # type: ignore[arg-type]
    assert names_by_bits(param_groups(wrapped)) == plain
    model.features[0] = torch.compile(model.features[0])
    assert names_by_bits(param_groups(model)) == plain


def test_an_own_module_named_module_keeps_its_name() -> None:
    model = nn.ModuleDict({"module": nn.Linear(2, 2, bias=False)})
    assert quantized(model) == {"module.weight": 5}


def test_skip_by_module_parameter_and_container() -> None:
    with torch.device("meta"):
        model = create("cifar_resnet20", num_classes=10)
    everything = set(quantized(model))
    assert everything - set(quantized(model, skip=["conv1", "linear.weight"])) == {"conv1.weight", "linear.weight"}
    without = set(quantized(model, skip=("layer2",)))
    assert everything - without == {name for name in everything if name.startswith("layer2.")}
    assert set(quantized(model, skip=["layer[12]*"])) == {n for n in everything if n[:6] not in ("layer1", "layer2")}
    assert set(quantized(model, skip="linear")) == everything - {"linear.weight"}


def test_the_last_bits_count_and_skip_goes_before() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    chosen = quantized(model, bits={"*": 4, "1": 2, "2": 3}, skip=["2"])
    assert chosen == {"0.weight": 4, "1.weight": 2}


def test_without_bits_everything_is_float_but_exceptions() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert [group["weight_bits"] for group in param_groups(model, weight_bits=None)] == [None]
    assert quantized(model, weight_bits=None, bits={"1": 4}) == {"1.weight": 4}


def test_weights_that_are_not_trained_are_quantized() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert quantized(model) == {"0.weight": 5, "1.weight": 5}


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [("clasifier", "classifier"), ("features.0.wieght", "features.0.weight"), ("features.1", "features.0")],
)
@pytest.mark.parametrize("argument", ["skip", "bits"])
def test_a_pattern_that_matches_nothing_names_the_nearest(pattern: str, nearest: str, argument: str) -> None:
    model = create("digits_cnn", num_classes=10, in_channels=1)
    options: dict[str, Any] = {"skip": [pattern]} if argument == "skip" else {"bits": {pattern: 4}}
    with pytest.raises(ValueError, match=f"'{pattern}' matches no .*{nearest}"):
        param_groups(model, **options)


@pytest.mark.parametrize("bits", [1, 9, 0, True, 4.0, "5"])
def test_bits_out_of_range(bits: Any) -> None:
    with pytest.raises(ValueError, match="weight_bits must be a whole number from 2 to 8"):
        param_groups(nn.Linear(2, 2), bits)
    with pytest.raises(ValueError, match=r"bits\['weight'\] must be a whole number from 2 to 8"):
        param_groups(nn.Linear(2, 2), bits={"weight": bits})


@pytest.mark.parametrize(
    ("model", "skip", "why"),
    [
        (nn.BatchNorm2d(3), [], "BatchNorm2d has no convolution, linear layer or attention"),
        (nn.LSTM(3, 3), [], "LSTM has no convolution"),
        (nn.Linear(2, 2), ["*"], r"all 1 convolution and linear weights of Linear stay float by skip=\('\*',\)"),
    ],
    ids=["normalization", "LSTM", "all skipped"],
)
def test_nothing_to_quantize(model: nn.Module, skip: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=f"nothing to quantize: {why}"):
        param_groups(model, skip=skip)


def test_what_is_no_module() -> None:
    with pytest.raises(ValueError, match=r"model must be a torch\.nn\.Module, got str"):
        param_groups("resnet18")  # type: ignore[arg-type]


def test_lazy_modules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1.weight has no shape yet"):
        param_groups(nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2)))


@pytest.mark.parametrize("normalize", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_computed_weights_are_refused_unless_skipped(normalize: Any) -> None:
    model = nn.Sequential(nn.Linear(2, 2), normalize(nn.Linear(2, 2)))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with pytest.raises(ValueError, match=r"1.weight is computed from other parameters .*remove_parametrizations"):
        param_groups(model)
    assert quantized(model, skip=["1.weight"]) == {"0.weight": 5}
    assert [group["weight_bits"] for group in param_groups(model, weight_bits=None)] == [None]
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers()), "looking computes nothing"


@pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "compute",
    [
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
    ],
)
def test_what_is_said_to_do_makes_a_computed_weight_a_plain_one(compute: Any) -> None:
    module = compute(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"make it a plain one with (torch\.[^ ]+ 'weight'\))\)") as error:
        param_groups(nn.Sequential(module))
    eval(str(error.value).partition("make it a plain one with ")[2].partition(")")[0] + ")")  # noqa: S307  # our own
    assert quantized(nn.Sequential(module)) == {"0.weight": 5}


class FSDPModule:
    """Mixed into each module that torch's fully_shard shards."""


def test_sharded_networks_are_refused_where_something_is_quantized() -> None:
    sharded = type("FSDPLinear", (FSDPModule, nn.Linear), {})
    model = nn.Sequential(nn.Linear(2, 2), sharded(2, 2))
    with pytest.raises(ValueError, match=r"1 is sharded by FSDP.*DistributedDataParallel instead"):
        param_groups(model)
    assert names_by_bits(param_groups(model, weight_bits=None)).keys() == {None}


def test_a_computed_in_projection_is_refused() -> None:
    model = nn.utils.parametrizations.weight_norm(nn.MultiheadAttention(4, 2), "in_proj_weight")
    with pytest.raises(ValueError, match="in_proj_weight is computed"):
        param_groups(model)
    assert list(quantized(model, skip=["in_proj_weight"])) == ["out_proj.weight"]


class StdConv2d(nn.Conv2d):
    """Standardizes its weight, as the class of this name in timm and elsewhere."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, (self.weight - self.weight.mean()) / self.weight.std())


def test_standardized_weights_are_refused_unless_skipped() -> None:
    model = nn.Sequential(StdConv2d(2, 2, 1), StdConv2d(2, 2, 1), nn.Conv2d(2, 2, 1))
    with pytest.raises(ValueError, match=r"0.weight is changed in forward of StdConv2d .* \(and 1 more\): pass skip="):
        param_groups(model)
    assert quantized(model, skip=["[01]"]) == {"2.weight": 5}
    assert quantized(model, weight_bits=None, bits={"2": 4}) == {"2.weight": 4}


def test_a_weight_shared_with_a_standardized_convolution_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), StdConv2d(2, 2, 1))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match=r"0.weight is changed in forward of StdConv2d"):
        param_groups(model)
