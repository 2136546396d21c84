"""What images a network wants: what torchvision and timm state themselves."""

import pytest
import torch
from torchvision.models import get_model_weights
from torchvision.transforms import functional

from inq_ray.models.eval_transform import EvalTransform, eval_transform
from inq_ray.models.torchvision_networks import names

IMAGENET = EvalTransform()


def test_every_weight_of_torchvision_means_what_its_transforms_do() -> None:
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    for arch in names():
        for weights in get_model_weights(arch):
            transform = eval_transform(arch, weights.name)
            transforms = weights.transforms()
            assert [transform.crop_size] == transforms.crop_size
            assert [transform.resize_size] == transforms.resize_size
            assert functional.InterpolationMode(transform.interpolation) is transforms.interpolation
            assert transform.interpolation in ("bilinear", "bicubic")
            transforms.crop_size, transforms.resize_size = [8], [8]
            expected = functional.normalize(
                functional.center_crop(
                    functional.resize(image, 8, functional.InterpolationMode(transform.interpolation)), 8
                ).float()
                / 255,
                transform.mean,
                transform.std,
            )
            torch.testing.assert_close(transforms(image), expected)


@pytest.mark.parametrize(
    ("arch", "weights", "expected"),
    [
        ("resnet18", None, IMAGENET),
        ("resnet50", None, IMAGENET),
        ("resnet50", "a.pth", IMAGENET),
        ("resnet50", "DEFAULT", EvalTransform(resize_size=232)),
        ("inception_v3", None, EvalTransform(crop_size=299, resize_size=342)),
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", EvalTransform(crop_size=384, resize_size=384, interpolation="bicubic")),
        ("vit_h_14", "a.pth", EvalTransform(crop_size=518, resize_size=518, interpolation="bicubic")),
        ("cifar_resnet20", "a.pth", IMAGENET),
        ("json:dumps", None, IMAGENET),
    ],
)
def test_transforms_by_hand(arch: str, weights: str | None, expected: EvalTransform) -> None:
    assert eval_transform(arch, weights) == expected


def test_names_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="torchvision's trained weights for resnet18"):
        eval_transform("resnet18", "IMAGENET1K_V3")
    with pytest.raises(ValueError, match="not a known network"):
        eval_transform("resnet19")


@pytest.mark.parametrize("name", ["resnet50.a1_in1k", "resnet50.tv2_in1k", "test_vit", "convnext_atto.d2_in1k"])
def test_timm_as_its_own_transforms(name: str) -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    model = timm.create_model(name)
    resize, crop, _, normalize = timm.data.create_transform(**timm.data.resolve_model_data_config(model)).transforms
    transform = eval_transform(f"timm/{name}")
    assert transform.resize_size == resize.size
    assert (transform.crop_size, transform.crop_size) == crop.size
    assert transform.interpolation == resize.interpolation.value
    torch.testing.assert_close(torch.tensor(transform.mean), normalize.mean)
    torch.testing.assert_close(torch.tensor(transform.std), normalize.std)
    base, _, tag = name.partition(".")
    assert eval_transform(f"timm/{base}", tag or "DEFAULT") == transform


def test_timm_names_that_are_not_there_and_images_that_are_not_square() -> None:
    pytest.importorskip("timm", reason="the extra timm is not installed")
    with pytest.raises(ValueError, match="timm has no such weights for resnet50"):
        eval_transform("timm/resnet50", "a9_in1k")
    with pytest.raises(ValueError, match="1024x768 pixels: only square"):
        eval_transform("timm/vit_base_patch16_sapiens2")
