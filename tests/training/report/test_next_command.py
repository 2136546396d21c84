import dataclasses
import re
import shlex

import pytest

from inq_ray.data.preprocessing import Preprocessing
from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.flags.command import program
from inq_ray.training.flags.parse import parse
from inq_ray.training.report.next_command import next_command
from inq_ray.training.task import build

IMAGENET = default_recipe("resnet50", 5).replace(data={"data": "/data"})


def preset_of(config: RunConfig) -> Preprocessing:
    return build.preprocessing_of(config.data, config.network)


def again(config: RunConfig) -> RunConfig:
    """The configuration that the command starts with."""
    return parse(
        shlex.split(next_command(config, "/runs/a", is_quantized=True, in_memory=False))[len(program("evaluate")) :]
    ).run


def test_nothing_is_said_that_goes_without_saying() -> None:
    words = shlex.split(next_command(IMAGENET, "/runs/a", is_quantized=True, in_memory=False))
    assert words[len(program("evaluate")) :] == [
        "--data", "/data", "--arch", "resnet50", "--weights", "/runs/a/model.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"crop_size": 32},
        {"resize_size": 300},
        {"interpolation": "bicubic"},
        {"crop_size": 64, "resize_size": 64},
        {"mean": (0.5,), "std": (0.25, 0.25, 0.2)},
    ],
)
@pytest.mark.parametrize("weights", [None, "/w.pth", "IMAGENET1K_V1", "IMAGENET1K_V2"])
def test_the_result_is_measured_on_images_as_the_run_saw_them(data: dict[str, object], weights: str | None) -> None:
    config = IMAGENET.replace(data=data, network={"weights": weights})
    expected = preset_of(config)
    repeated = preset_of(again(config))
    assert dataclasses.replace(repeated, is_sized=expected.is_sized) == expected
    assert repeated.is_sized or not expected.is_sized


def test_small_images_are_measured_as_they_were() -> None:
    config = IMAGENET.replace(network={"weights": "IMAGENET1K_V2"})
    assert "--crop-size" not in next_command(config, "/runs/a", is_quantized=True, in_memory=True)


@pytest.mark.parametrize("weights", ["augreg_in21k", "vit_tiny_patch16_224.augreg_in21k", "DEFAULT", "/w.pth"])
def test_timms_normalization_follows_the_tag(weights: str) -> None:
    pytest.importorskip("timm")
    config = IMAGENET.replace(network={"arch": "timm/vit_tiny_patch16_224", "weights": weights})
    assert preset_of(again(config)) == preset_of(config)


def test_the_same_images_are_measured() -> None:
    config = IMAGENET.replace(data={"holdout": 100, "skip_bad_images": 3, "follow_links": True}, training={"seed": 7})
    found = again(config)
    assert (found.data.holdout, found.data.skip_bad_images, found.training.seed) == (100, 3, 7)
    assert found.data.follow_links


def test_black_borders_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("--resize-size 32 is less than the crop of 224 pixels")):
        preset_of(IMAGENET.replace(data={"resize_size": 32}))
