"""Presets are those that weights state, and are checked when made."""

from typing import Any

import pytest
from torchvision.models import Inception_V3_Weights, ResNet18_Weights

from inq_ray.data.preset import Preset


def test_the_defaults_are_those_of_resnet() -> None:
    stated = ResNet18_Weights.IMAGENET1K_V1.transforms()
    preset = Preset()
    assert [preset.crop_size] == stated.crop_size
    assert [preset.resize_size] == stated.resize_size
    assert preset.interpolation == stated.interpolation.value
    assert (list(preset.mean), list(preset.std)) == (stated.mean, stated.std)
    assert preset.train_size == preset.crop_size
    assert Preset(train_crop_size=176).train_size == 176


def test_a_preset_takes_what_torchvision_states() -> None:
    stated = Inception_V3_Weights.IMAGENET1K_V1.transforms()
    preset = Preset(
        crop_size=stated.crop_size[0],
        resize_size=stated.resize_size[0],
        interpolation=stated.interpolation.value,
        mean=stated.mean,
        std=stated.std,
    )
    assert preset == Preset(crop_size=299, resize_size=342)
    assert hash(preset) == hash(Preset(crop_size=299, resize_size=342))


@pytest.mark.parametrize(
    "wrong",
    [{"crop_size": 0}, {"crop_size": 5000}, {"resize_size": -1}, {"train_crop_size": 0}, {"interpolation": "lanczos"}],
)
def test_what_is_not_possible_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))) as caught:
        Preset(**wrong)
    assert "\n" not in str(caught.value)
