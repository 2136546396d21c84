"""torchvision's classification networks by name, and the trained weights that torchvision has for each."""

import difflib
import inspect
from typing import Any

from torch import nn

from inq_ray.files.shown import one_line
from inq_ray.models.weight_files import WeightsError, first_line

# These put a second output beside the logits while training; INQ's authors re-train on the logits alone.
_WITH_AUXILIARY = ("googlenet", "inception_v3")
# Arguments by which vision transformers are built for images of one size.
_SIZE_ARGUMENTS = {"VisionTransformer": "image_size", "MaxVit": "input_size"}


def names() -> list[str]:
    """Names of all classification networks of torchvision."""
    # Imported here: torchvision costs seconds, and our own names do not need it.
    import torchvision.models

    known: list[str] = torchvision.models.list_models(module=torchvision.models)
    return known


def family(arch: str) -> str:
    """Return the module of torchvision that a network comes from: "torchvision.models.resnet"."""
    import torchvision.models

    module: str = torchvision.models.get_model_builder(arch).__module__
    return module


def create(arch: str, *, num_classes: int, in_channels: int, image_size: int | None) -> nn.Module:
    """Build a network of `names()` with fresh weights, see `inq_ray.models.registry.create`.

    googlenet and inception_v3 turn ImageNet's normalization into that of their trained weights (`transform_input`), as
    torchvision lets them where it loads those; only images of 3 channels have it.
    """
    import torchvision.models

    options: dict[str, Any] = {}
    if arch in _WITH_AUXILIARY:
        options = {"aux_logits": False, "init_weights": True, "transform_input": in_channels == 3}
    if image_size is not None:
        options |= _size_option(arch, image_size)
    try:
        model: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **options)
    except (AssertionError, ValueError) as error:  # a size that the network's patches or windows do not divide
        raise ValueError(f"{arch=} cannot be built for images of {image_size} pixels: {first_line(error)}") from error
    if in_channels != 3:
        _replace_first_convolution(model, in_channels)
    return model


def weights(arch: str, name: str) -> Any:
    """Return the member of the network's enum of trained weights: "DEFAULT", "IMAGENET1K_V1", ...

    The enum's own name may stand before it, as in torchvision's reference: "ResNet18_Weights.IMAGENET1K_V1".

    Raises:
        ValueError: The enum has no such member; the message names the nearest.
    """
    members = all_weights(arch).__members__
    short = name.removeprefix(f"{all_weights(arch).__name__}.")
    if short in members:
        return members[short]
    near = difflib.get_close_matches(short, members, n=3, cutoff=0.4) or list(members)
    raise WeightsError(
        f"{one_line(name, 100)} is neither a file nor trained weights of torchvision's {arch}; nearest: "
        f"{', '.join(near)}",
        flag="--weights",
    )


def all_weights(arch: str) -> Any:
    """Return the network's enum of trained weights."""
    import torchvision.models

    return torchvision.models.get_model_weights(arch)


def _size_option(arch: str, image_size: int) -> dict[str, Any]:
    """Return the argument that says for which images a network is built, for those that take one."""
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
    """Let the first convolution take other than 3 channels; every classification network of torchvision has one."""
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
