"""Shapes without data, and what of a network depends on the number of classes."""

from pathlib import Path

import pytest
import torch

from inq_ray.models.registry import create
from inq_ray.models.shapes import head_parameters, shapes

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("arch", "layers"),
    [
        ("alexnet", ["classifier.6"]),
        ("convnext_tiny", ["classifier.2"]),
        ("densenet121", ["classifier"]),
        ("efficientnet_b0", ["classifier.1"]),
        ("googlenet", ["fc"]),
        ("inception_v3", ["fc"]),
        ("mobilenet_v3_small", ["classifier.3"]),
        ("regnet_y_400mf", ["fc"]),
        ("squeezenet1_1", ["classifier.1"]),
        ("swin_t", ["head"]),
        ("vgg11", ["classifier.6"]),
        ("vit_b_32", ["heads.head"]),
        ("cifar_resnet20", ["linear"]),
        ("digits_cnn", ["classifier"]),
        ("timm/test_vit", ["head"]),
        ("timm/test_resnet", ["fc"]),
        ("timm/deit_tiny_distilled_patch16_224", ["head", "head_dist"]),
    ],
)
def test_heads(arch: str, layers: list[str]) -> None:
    if arch.startswith("timm/"):
        pytest.importorskip("timm", reason="the extra timm is not installed")
    expected = {f"{layer}.{key}" for layer in layers for key in ("weight", "bias")}
    assert head_parameters(arch) == expected


@pytest.mark.parametrize("arch", ["regnet_y_400mf", "swin_t", "shufflenet_v2_x0_5", "digits_cnn", "timm/test_convnext"])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_shapes_are_those_of_the_network(arch: str, in_channels: int) -> None:
    if arch.startswith("timm/"):
        pytest.importorskip("timm", reason="the extra timm is not installed")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = shapes(arch, num_classes=7, in_channels=in_channels)
    assert torch.equal(torch.get_rng_state(), before), "the random generator is left as it was found"
    model = create(arch, num_classes=7, in_channels=in_channels)
    assert found == {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_own_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_with_heads.py").write_text(
        "from torch import nn\n"
        "def headed(num_classes): return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, num_classes, bias=False))\n"
        "def fixed(): return nn.Linear(4, 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = torch.get_rng_state()
    assert head_parameters("nets_with_heads:headed") == {"1.weight"}
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="add the argument num_classes to its function"):
        head_parameters("nets_with_heads:fixed")
