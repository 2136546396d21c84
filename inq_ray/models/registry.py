"""Networks by name: torchvision's, timm's, CIFAR ResNets, a small one for digits, and your own.

| --arch                    | network                                                  |
|---------------------------|----------------------------------------------------------|
| `resnet18`                | torchvision's, any of its classification networks        |
| `timm/NAME`               | timm's; with a tag (`timm/resnet50.a1_in1k`) as timm's   |
| `cifar_resnet20`, 32, ... | this package's, for CIFAR                                |
| `digits_cnn`              | this package's, for digits of 8x8 pixels                 |
| `package.module:function` | your own                                                 |
"""

import difflib
from collections.abc import Callable
from functools import partial

from torch import nn

from inq_ray.models import own_network, timm_networks, torchvision_networks
from inq_ray.models.digits_cnn import DigitsCNN
from inq_ray.models.resnet_cifar import DEPTHS, ResNetCifar

OURS: dict[str, Callable[..., nn.Module]] = {
    **{f"cifar_resnet{depth}": partial(ResNetCifar, depth) for depth in DEPTHS},
    "digits_cnn": DigitsCNN,
}


def is_timm(arch: str) -> bool:
    """Return whether a name is timm's: "timm/NAME"."""
    return arch.startswith(timm_networks.PREFIX)


def is_own(arch: str) -> bool:
    """Return whether a name is that of a user's function: "package.module:function"."""
    return ":" in arch


def is_ours(arch: str) -> bool:
    """Return whether a name is that of a network of this package."""
    return arch in OURS


def check_arch(arch: str) -> None:
    """Refuse a name that `create` does not know. Builds nothing, but imports the module of a user's function.

    Raises:
        ValueError: No such network; the message names the nearest ones. Or timm is not installed, or a user's function
            does not exist.
    """
    if is_own(arch):
        own_network.find(arch)
    elif is_timm(arch):
        timm_networks.check(arch)
    elif not is_ours(arch) and arch not in torchvision_networks.names():
        known = [*OURS, *torchvision_networks.names()]
        near = difflib.get_close_matches(arch, known, n=3, cutoff=0.4) or [*list(OURS)[:2], "resnet18"]
        raise ValueError(
            f"{arch=} is not a known network; nearest: {', '.join(near)} (timm's are timm/NAME, your own "
            "package.module:function)"
        )


def create(arch: str, *, num_classes: int, in_channels: int = 3, image_size: int | None = None) -> nn.Module:
    """Build a network with random weights.

    Args:
        arch: A name as in the table above.
        num_classes: Number of logits. A user's function without this argument decides itself.
        in_channels: Channels of the images. torchvision's networks take 3: for another number their first convolution
            is replaced. Their auxiliary classifiers (googlenet, inception_v3) are left out.
        image_size: Height and width, pixels. Used by networks that are built for one size (vision transformers),
            ignored by all others; None = the network's published size.

    Returns:
        The network, in training mode (a user's own as its function returns it): float images [N, in_channels, H, W] ->
        logits [N, num_classes].

    Raises:
        ValueError: No such network, a number that is not positive, or the network cannot be built with these values.
    """
    check_arch(arch)
    if num_classes < 1 or in_channels < 1:
        raise ValueError(f"num_classes and in_channels must be at least 1, got {num_classes=}, {in_channels=}")
    if is_own(arch):
        return own_network.create(arch, num_classes=num_classes, in_channels=in_channels)
    if arch in OURS:
        return OURS[arch](num_classes=num_classes, in_channels=in_channels)
    from_library = timm_networks.create if is_timm(arch) else torchvision_networks.create
    return from_library(arch, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
