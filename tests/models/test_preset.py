"""What images a network wants: what torchvision and timm state themselves."""

import pytest
import torch
from torchvision.models import get_model_weights
from torchvision.transforms import functional

from inq_ray.models.preset import InputPreset, input_preset
from inq_ray.models.torchvision_networks import names

IMAGENET = InputPreset()


def test_every_weight_of_torchvision_means_what_its_transforms_do() -> None:
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    for arch in names():
        for weights in get_model_weights(arch):
            preset = input_preset(arch, weights.name)
            transforms = weights.transforms()
            assert [preset.crop_size] == transforms.crop_size
            assert [preset.resize_size] == transforms.resize_size
            assert functional.InterpolationMode(preset.interpolation) is transforms.interpolation
            assert preset.interpolation in ("bilinear", "bicubic")
            transforms.crop_size, transforms.resize_size = [8], [8]
            expected = functional.normalize(
                functional.center_crop(
                    functional.resize(image, 8, functional.InterpolationMode(preset.interpolation)), 8
                ).float()
                / 255,
                preset.mean,
                preset.std,
            )
            torch.testing.assert_close(transforms(image), expected)


@pytest.mark.parametrize(
    ("arch", "weights", "expected"),
    [
        ("resnet18", None, IMAGENET),
        ("resnet50", None, IMAGENET),
        ("resnet50", "a.pth", IMAGENET),
        ("resnet50", "DEFAULT", InputPreset(resize_size=232)),
        ("inception_v3", None, InputPreset(crop_size=299, resize_size=342)),
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", InputPreset(crop_size=384, resize_size=384, interpolation="bicubic")),
        ("vit_h_14", "a.pth", InputPreset(crop_size=518, resize_size=518, interpolation="bicubic")),
        ("cifar_resnet20", "a.pth", IMAGENET),
        ("json:dumps", None, IMAGENET),
    ],
)
def test_presets_by_hand(arch: str, weights: str | None, expected: InputPreset) -> None:
    assert input_preset(arch, weights) == expected


def test_names_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="torchvision's trained weights for resnet18"):
        input_preset("resnet18", "IMAGENET1K_V3")
    with pytest.raises(ValueError, match="not a known network"):
        input_preset("resnet19")


@pytest.mark.parametrize("name", ["resnet50.a1_in1k", "resnet50.tv2_in1k", "test_vit", "convnext_atto.d2_in1k"])
def test_timm_as_its_own_transforms(name: str) -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    model = timm.create_model(name)
    resize, crop, _, normalize = timm.data.create_transform(**timm.data.resolve_model_data_config(model)).transforms
    preset = input_preset(f"timm/{name}")
    assert preset.resize_size == resize.size
    assert (preset.crop_size, preset.crop_size) == crop.size
    assert preset.interpolation == resize.interpolation.value
    torch.testing.assert_close(torch.tensor(preset.mean), normalize.mean)
    torch.testing.assert_close(torch.tensor(preset.std), normalize.std)
    base, _, tag = name.partition(".")
    assert input_preset(f"timm/{base}", tag or "DEFAULT") == preset


def test_timm_names_that_are_not_there_and_images_that_are_not_square() -> None:
    pytest.importorskip("timm", reason="the extra timm is not installed")
    with pytest.raises(ValueError, match="timm has no such weights for resnet50"):
        input_preset("timm/resnet50", "a9_in1k")
    with pytest.raises(ValueError, match="1024x768 pixels: only square"):
        input_preset("timm/vit_base_patch16_sapiens2")
