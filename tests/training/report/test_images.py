"""What is done to images is said, and where each part of it comes from."""

import dataclasses

from inq_ray.data.image_set import SourceInfo
from inq_ray.data.source import open_source
from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.report.images import describe_classes, describe_images
from tests.training.toys import toy_task

IMAGENET = default_recipe("resnet50", 5).replace(data={"data": "/data"})
INFO = dataclasses.replace(
    open_source("digits").info,
    name="/data",
    channels=3,
    height=224,
    width=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    is_streamed=True,
)


def lines(config: RunConfig, info: SourceInfo = INFO) -> list[str]:
    return describe_images(config.data, config.network, info, is_trained=True)


def test_by_default() -> None:
    size, validation, training = lines(IMAGENET.replace(network={"weights": "IMAGENET1K_V2"}))
    assert size == (
        "images: 3x224x224 (channels, height, width; channels: default, size: weights), normalized by mean 0.485 0.456 "
        "0.406 (weights) and std 0.229 0.224 0.225 (weights)"
    )
    assert validation == (
        "validation: shorter side resized to 232 (weights), center crop of 224x224 (weights), bilinear (weights)"
    )
    assert training == (
        "training: random crop of 0.08 to 1 of the area, width / height 0.75 to 1.333, resized to 224x224; half of the "
        "images mirrored (default for colors: --flip, --no-flip); auto-augment none; random erasing 0"
    )


def test_by_flags() -> None:
    flags = {"crop_size": 32, "flip": False, "crop_scale": (0.5, 1.0), "mean": (0.5,), "interpolation": "bicubic"}
    size, validation, training = lines(IMAGENET.replace(data=flags), dataclasses.replace(INFO, height=32, width=32))
    assert "size: flag" in size
    assert "(flag) and std 0.229 0.224 0.225 (assumed)" in size
    assert validation == "validation: shorter side resized to 37 (flag), center crop of 32x32 (flag), bicubic (flag)"
    assert training.startswith(
        "training: random crop of 0.5 to 1 of the area, width / height 0.75 to 1.333, resized to 32"
    )
    assert "; not mirrored (flag: --flip, --no-flip);" in training


def test_by_nvjpeg() -> None:
    config = IMAGENET.replace(data={"jpeg_decoder": "nvjpeg"}, cluster={"use_gpu": True})
    (line,) = (line for line in lines(config) if line not in lines(IMAGENET))
    assert line == (
        "decoding: baseline JPEGs by nvJPEG on the GPU, all other images on the CPU (flag); bits of pixels, and so of "
        "results, differ from those with --jpeg-decoder cpu"
    )


def test_images_in_memory() -> None:
    small = dataclasses.replace(INFO, name="/data/below", height=40, width=40, is_streamed=False)
    where, size, validation, training = lines(IMAGENET, small)
    assert where == "data: read from /data/below"
    assert size.startswith("images: 3x40x40 (channels, height, width; data)")
    assert validation == "validation: images unchanged (data: they are small and of one size)"
    assert training.startswith(
        "training: padded by 5 with black and cropped back at random; half of the images mirrored"
    )
    assert (
        "training: padded by 2 with the pixels of the edge and cropped back at random;"
        in lines(IMAGENET.replace(data={"crop_padding": 2, "padding_mode": "edge"}), small)[-1]
    )
    assert "training: not cropped (flag);" in lines(IMAGENET.replace(data={"crop_padding": 0}), small)[-1]
    tiny = dataclasses.replace(small, height=7, width=7)
    assert "training: not cropped (data: too small);" in lines(IMAGENET, tiny)[-1]
    digits = lines(RunConfig(), open_source("digits").info)
    assert "(data) and std" in digits[0]
    assert digits[2].startswith(
        "training: padded by 1 with black and cropped back at random; not mirrored (default for"
    )


def test_the_order_of_classes_is_shown() -> None:
    info = toy_task(4).info
    assert describe_classes(info) == ["classes: 0 a, 1 b, 2 c"]
    many = tuple(f"n{number}" for number in range(1000))
    assert describe_classes(dataclasses.replace(info, class_names=many)) == [
        "classes: 0 n0, 1 n1, 2 n2, 3 n3, 4 n4, ..., 999 n999"
    ]
    assert describe_classes(dataclasses.replace(info, class_names=("0", "1"))) == []
