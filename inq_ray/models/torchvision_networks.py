"""torchvision's classification networks by name, and their trained weights."""

import difflib
import inspect
from typing import Any

from torch import nn

from inq_ray.files.shown import one_line
from inq_ray.models.weights.files import WeightsError, first_line

# These return auxiliary logits while training; INQ's authors re-train on the main logits alone.
_WITH_AUXILIARY = ("googlenet", "inception_v3")
# Arguments that set the image size of vision transformers.
_SIZE_ARGUMENTS = {"VisionTransformer": "image_size", "MaxVit": "input_size"}


def names() -> list[str]:
    """Return the names of all classification networks of torchvision."""
    # Imported here: importing torchvision takes seconds, and our own networks do not need it.
    import torchvision.models

    known: list[str] = torchvision.models.list_models(module=torchvision.models)
    return known


def family(arch: str) -> str:
    """Return the torchvision module that defines a network, such as "torchvision.models.resnet"."""
    import torchvision.models

    module: str = torchvision.models.get_model_builder(arch).__module__
    return module


def create(arch: str, *, num_classes: int, in_channels: int, image_size: int | None) -> nn.Module:
    """Build a network of `names()` with random weights, see `inq_ray.models.registry.create`.

    googlenet and inception_v3 convert ImageNet's normalization to that of their trained weights (`transform_input`), as
    torchvision does when it loads those; only for images of 3 channels.
    """
    import torchvision.models

    options: dict[str, Any] = {}
    if arch in _WITH_AUXILIARY:
        options = {"aux_logits": False, "init_weights": True, "transform_input": in_channels == 3}
    if image_size is not None:
        options |= _size_option(arch, image_size)
    try:
        model: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **options)
    except (AssertionError, ValueError) as error:  # a size that is not a multiple of the patches or windows
        raise ValueError(f"{arch=} cannot be built for images of {image_size} pixels: {first_line(error)}") from error
    if in_channels != 3:
        _replace_first_convolution(model, in_channels)
    return model


def weights(arch: str, name: str) -> Any:
    """Return a member of the network's enum of trained weights: "DEFAULT", "IMAGENET1K_V1", ...

    The enum's name may precede it, as in torchvision's reference: "ResNet18_Weights.IMAGENET1K_V1".

    Raises:
        ValueError: The enum has no such member; the message names the nearest.
    """
    members = all_weights(arch).__members__
    short = name.removeprefix(f"{all_weights(arch).__name__}.")
    if short in members:
        return members[short]
    near = difflib.get_close_matches(short, members, n=3, cutoff=0.4) or list(members)
    raise WeightsError(
        f"{one_line(name, 100)} is neither a file nor a name of torchvision's trained weights for {arch}; nearest: "
        f"{', '.join(near)}",
        flag="--weights",
    )


def all_weights(arch: str) -> Any:
    """Return the network's enum of trained weights."""
    import torchvision.models

    return torchvision.models.get_model_weights(arch)


def _size_option(arch: str, image_size: int) -> dict[str, Any]:
    """Return the argument that sets the image size, for networks that have one."""
    import torchvision.models

    returned = inspect.signature(torchvision.models.get_model_builder(arch)).return_annotation
    match _SIZE_ARGUMENTS.get(getattr(returned, "__name__", "")):
        case "input_size":
            return {"input_size": (image_size, image_size)}
        case "image_size":
            return {"image_size": image_size}
        case _:
            return {}


def _replace_first_convolution(model: nn.Module, in_channels: int) -> None:
    """Replace the first convolution by one with other than 3 channels; every network here has such a convolution."""
    name, first = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    assert first.in_channels == 3, (name, first)
    parent, _, child = name.rpartition(".")
    fresh = nn.Conv2d(
        in_channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        stride=first.stride,  # type: ignore[arg-type]
        padding=first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
    setattr(model.get_submodule(parent), child, fresh)
