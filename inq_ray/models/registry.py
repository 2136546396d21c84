"""Networks by name: every classification network of torchvision, the CIFAR ResNets, and a small one for digits."""

import difflib
from collections.abc import Callable

from torch import nn

from inq_ray.models.digits_cnn import DigitsCNN
from inq_ray.models.resnet_cifar import DEPTHS, ResNetCifar

_OURS: dict[str, Callable[..., nn.Module]] = {"digits_cnn": DigitsCNN}
_PREFIX = "cifar_resnet"
# These put a second output beside the logits while training; INQ's authors re-train on the logits alone.
_WITH_AUXILIARY = ("googlenet", "inception_v3")


def check_arch(arch: str) -> None:
    """Refuse a name that `create` does not know; builds nothing.

    Raises:
        ValueError: No such network; the message names the nearest ones.
    """
    if arch in _our_names() or arch in _torchvision_names():
        return
    known = [*_our_names(), *_torchvision_names()]
    near = difflib.get_close_matches(arch, known, n=3, cutoff=0.4) or [*_our_names()[:2], "resnet18"]
    raise ValueError(f"{arch=} is no network known here; nearest: {', '.join(near)}")


def create(arch: str, *, num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        arch: A name of `torchvision.models` (classification), "cifar_resnet20", 32, 44, 56, 110, or "digits_cnn".
        num_classes: Number of logits.
        in_channels: Channels of the images. torchvision's networks take 3: with another number their first convolution
            is made anew. Their auxiliary classifiers (googlenet, inception_v3) are left out.

    Returns:
        The network, in training mode: float images [N, in_channels, H, W] -> logits [N, num_classes].

    Raises:
        ValueError: No such network, or a number that is not positive.
    """
    check_arch(arch)
    if num_classes < 1 or in_channels < 1:
        raise ValueError(f"num_classes and in_channels must be at least 1, got {num_classes=}, {in_channels=}")
    if arch in _OURS:
        return _OURS[arch](num_classes=num_classes, in_channels=in_channels)
    if arch.startswith(_PREFIX):
        return ResNetCifar(int(arch.removeprefix(_PREFIX)), num_classes=num_classes, in_channels=in_channels)
    return _from_torchvision(arch, num_classes, in_channels)


def _our_names() -> list[str]:
    return [*(f"{_PREFIX}{depth}" for depth in DEPTHS), *_OURS]


def _torchvision_names() -> list[str]:
    # Imported here: torchvision costs seconds, and our own names do not need it.
    import torchvision.models

    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def _from_torchvision(arch: str, num_classes: int, in_channels: int) -> nn.Module:
    import torchvision.models

    options = {"aux_logits": False, "init_weights": True} if arch in _WITH_AUXILIARY else {}
    model: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **options)
    if in_channels != 3:
        _replace_first_convolution(model, in_channels)
    return model


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
