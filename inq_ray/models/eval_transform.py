"""Preprocessing that a network's trained weights expect."""

from dataclasses import dataclass

from inq_ray.models import timm_networks, torchvision_networks
from inq_ray.models.registry import check_arch, is_ours, is_own, is_timm
from inq_ray.models.weights.files import is_weights_file


@dataclass(frozen=True, kw_only=True)
class EvalTransform:
    """Resize, crop and normalization for validation; the defaults are ImageNet's usual ones.

    Attributes:
        crop_size: Height and width of the network's input, pixels.
        resize_size: Shorter side before the center crop, pixels.
        interpolation: "bilinear", "bicubic" or "nearest".
        mean: Mean per channel, for values in [0, 1].
        std: Standard deviation per channel.
    """

    crop_size: int = 224
    resize_size: int = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


def eval_transform(arch: str, weights: str | None = None) -> EvalTransform:
    """Return the preprocessing of weights; downloads and builds nothing.

    For a file or no weights, torchvision's networks have the transform of their IMAGENET1K_V1, or else of the first
    weights in their enum; timm's have that of the tag in their name, or else of their first tag. timm's crop modes
    "squash" and "border" (7 % of its weights) are replaced by the usual center crop.

    Args:
        arch: A name as in `create`.
        weights: As in `resolve_weights`.

    Raises:
        ValueError: No such network, or no such weights for it.
    """
    check_arch(arch)
    if is_own(arch) or is_ours(arch):
        return EvalTransform()
    name = None if weights is None or is_weights_file(weights) else weights
    return _of_timm(arch, name) if is_timm(arch) else _of_torchvision(arch, name)


def _of_torchvision(arch: str, name: str | None) -> EvalTransform:
    if name is None:
        known = torchvision_networks.all_weights(arch).__members__
        name = "IMAGENET1K_V1" if "IMAGENET1K_V1" in known else next(iter(known), None)
        if name is None:
            return EvalTransform()
    transforms = torchvision_networks.weights(arch, name).transforms()
    return EvalTransform(
        crop_size=int(transforms.crop_size[0]),
        resize_size=int(transforms.resize_size[0]),
        interpolation=str(transforms.interpolation.value),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def _of_timm(arch: str, name: str | None) -> EvalTransform:
    config = timm_networks.data_config(arch, name)
    _, height, width = config["input_size"]
    if height != width:
        raise ValueError(f"{arch=} takes images of {height}x{width} pixels: only square images are supported")
    return EvalTransform(
        crop_size=height,
        resize_size=config["resize_size"],
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
