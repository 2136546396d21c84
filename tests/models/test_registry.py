"""Networks by name."""

import sys

import pytest
import torch

from inq_ray.models.registry import check_arch, create
from inq_ray.models.shapes import without_data

pytestmark = pytest.mark.system


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)])
def test_cifar_resnets_have_the_published_size(depth: int, parameters: int) -> None:
    model = create(f"cifar_resnet{depth}", num_classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_cifar_resnet_names_and_shortcut() -> None:
    model = create("cifar_resnet20", num_classes=10)
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    layers = ["conv1", "bn1", *(f"{b}.{part}" for b in blocks for part in ("conv1", "bn1", "conv2", "bn2")), "linear"]
    assert [name.removesuffix(".weight") for name, _ in model.named_parameters() if name.endswith(".weight")] == layers
    x = torch.randn(1, 16, 4, 4)
    out = model.get_submodule("layer2.0").shortcut(x)
    assert out.shape == (1, 32, 2, 2)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_digits_cnn_is_small_and_takes_other_sizes() -> None:
    model = create("digits_cnn", num_classes=7, in_channels=1).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) < 60_000
    for size in (8, 9, 28):
        assert model(torch.zeros(2, 1, size, size)).shape == (2, 7)


@pytest.mark.parametrize("arch", ["resnet18", "googlenet", "mobilenet_v2", "vit_b_32"])
@pytest.mark.parametrize("in_channels", [1, 3, 4])
def test_torchvision_networks_take_other_channels_and_classes(arch: str, in_channels: int) -> None:
    with torch.device("meta"):
        model = create(arch, num_classes=7, in_channels=in_channels)
        assert model(torch.zeros(2, in_channels, 224, 224)).shape == (2, 7)


def test_a_replaced_first_convolution_keeps_its_place_and_settings() -> None:
    model = create("resnet18", num_classes=10, in_channels=1)
    assert next(iter(model.state_dict())) == "conv1.weight"
    assert model.conv1.weight.shape == (64, 1, 7, 7)
    assert (model.conv1.stride, model.conv1.padding, model.conv1.bias) == ((2, 2), (3, 3), None)


@pytest.mark.parametrize(
    ("arch", "nearest"), [("resnet19", "resnet18"), ("cifar_resnet21", "cifar_resnet20"), ("digit_cnn", "digits_cnn")]
)
def test_an_unknown_name_tells_the_nearest(arch: str, nearest: str) -> None:
    for function in (check_arch, lambda name: create(name, num_classes=10)):
        with pytest.raises(ValueError, match=f"'{arch}' is not a .*network.*{nearest}"):
            function(arch)


@pytest.mark.parametrize("numbers", [{"num_classes": 0}, {"num_classes": 2, "in_channels": 0}])
def test_numbers_must_be_positive(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        create("digits_cnn", **numbers)


@pytest.mark.parametrize(
    ("arch", "size"), [("vit_b_32", 64), ("maxvit_t", 448), ("resnet18", 64), ("timm/test_vit", 96)]
)
def test_networks_for_one_size_are_built_for_it(arch: str, size: int) -> None:
    if arch.startswith("timm/"):
        pytest.importorskip("timm", reason="the extra timm is not installed")
    with without_data():
        model = create(arch, num_classes=7, image_size=size)
    assert model.to("meta")(torch.empty(2, 3, size, size, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("arch", ["vit_b_32", "maxvit_t", "timm/twins_pcpvt_small", "timm/maxvit_tiny_tf_224"])
def test_sizes_that_a_network_cannot_be_built_for(arch: str) -> None:
    if arch.startswith("timm/"):
        pytest.importorskip("timm", reason="the extra timm is not installed")
    with pytest.raises(ValueError, match=r"cannot be built for .*images of 7 pixels") as error:
        create(arch, num_classes=7, image_size=7)
    assert "\n" not in str(error.value)


def test_timm_networks_take_other_channels_and_classes() -> None:
    pytest.importorskip("timm", reason="the extra timm is not installed")
    model = create("timm/test_resnet.r160_in1k", num_classes=7, in_channels=1).eval()
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("arch", "told"),
    [
        ("timm/resnet19", "'timm/resnet19' is not a network of timm; nearest: .*timm/resnet1"),
        ("timm/", "is not a network of timm; nearest: timm/resnet18"),
        ("timm/resnet18.a9_in1k", "'timm/resnet18.a9_in1k': timm has no such weights for resnet18; nearest: a"),
    ],
)
def test_unknown_names_of_timm(arch: str, told: str) -> None:
    pytest.importorskip("timm", reason="the extra timm is not installed")
    for function in (check_arch, lambda name: create(name, num_classes=10)):
        with pytest.raises(ValueError, match=told):
            function(arch)


def test_without_timm_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"'timm/resnet18' needs timm.*: pip install .*timm"):
        check_arch("timm/resnet18")
