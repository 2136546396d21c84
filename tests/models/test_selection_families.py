"""What is quantized in the families of torchvision and timm, against what each network multiplies by when it runs."""

import pytest
import torch
from torch import nn

from inq_ray.models.registry import create
from inq_ray.models.selection import param_groups
from inq_ray.models.shapes import without_data
from tests.models.multiplications import multiplied

pytestmark = pytest.mark.system

TORCHVISION = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_16",
]
TIMM = [
    "resnet50",
    "vit_tiny_patch16_224",
    "convnext_atto",
    "efficientnet_b0",
    "mobilenetv4_conv_small",
    "deit_tiny_distilled_patch16_224",
    "mixer_s32_224",
    "repvgg_a0",
    "test_vit",
]


def built(arch: str, image_size: int | None = None) -> nn.Module:
    with without_data():
        return create(arch, num_classes=7, image_size=image_size)


def by_bits(model: nn.Module, skip: tuple[str, ...] = ()) -> tuple[set[str], set[str]]:
    """Return the names of quantized and of float parameters."""
    groups = param_groups(model, skip=skip)
    quantized, floats = ({name for g in groups if bool(g["weight_bits"]) is kind for name, _ in g["params"]}
                         for kind in (True, False))  # fmt: skip
    return quantized, floats


@pytest.mark.parametrize("arch", TORCHVISION)
def test_torchvision_families_quantize_what_they_multiply_by(arch: str) -> None:
    model = built(arch)
    quantized, floats = by_bits(model)
    assert quantized == multiplied(model, 299 if arch == "inception_v3" else 224)
    assert quantized | floats == {name for name, _ in model.named_parameters()}


# What has a matrix's shape, or no name of a bias or of a normalization, and yet is no weight of a layer.
@pytest.mark.parametrize(
    ("arch", "others"),
    [
        ("convnext_tiny", {"layer_scale"}),
        ("swin_t", {"relative_position_bias_table"}),
        ("swin_v2_t", {"logit_scale"}),
        ("maxvit_t", {"relative_position_bias_table"}),
        ("vit_b_16", {"class_token", "pos_embedding"}),
        ("densenet121", set()),
        ("regnet_y_400mf", set()),
    ],
)
def test_what_else_stays_float_is_known_by_hand(arch: str, others: set[str]) -> None:
    model = built(arch)
    _, floats = by_bits(model)
    norms = {f"{path}.weight" for path, module in model.named_modules() if "Norm" in type(module).__name__}
    last = {name.rpartition(".")[2] for name in floats - norms}
    assert last - {"bias", "in_proj_bias"} == others


@pytest.mark.parametrize("name", TIMM)
def test_timm_networks_quantize_what_they_multiply_by(name: str) -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    model = built(f"timm/{name}")
    size = timm.models.get_pretrained_cfg(name).input_size[1]
    quantized, floats = by_bits(model)
    assert quantized == multiplied(model, size)
    assert quantized | floats == {parameter for parameter, _ in model.named_parameters()}


@pytest.mark.parametrize("name", ["nf_resnet26", "dm_nfnet_f0", "resnetv2_50x1_bit", "test_nfnet"])
def test_timm_networks_with_standardized_convolutions_are_refused_unless_skipped(name: str) -> None:
    pytest.importorskip("timm", reason="the extra timm is not installed")
    model = built(f"timm/{name}")
    standardized = {f"{path}.weight" for path, module in model.named_modules() if "StdConv" in type(module).__name__}
    assert len(standardized) > 10
    with pytest.raises(ValueError, match=r"is changed in forward of .*StdConv"):
        param_groups(model)
    quantized, _ = by_bits(model, skip=tuple(standardized))
    assert quantized == multiplied(model, 224), "standardized weights are multiplied with in a form that is computed"
    assert not quantized & standardized


def test_the_answer_that_is_compared_with_is_right_where_it_can_be_seen() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Linear(4, 4)
            self.unused = nn.Linear(4, 4)
            self.scale = nn.Parameter(torch.ones(4, 4))
            self.matrix = nn.Parameter(torch.ones(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x * self.scale) @ self.matrix

    assert multiplied(Net(), 4) == {"used.weight", "matrix"}
