"""Which network is quantized."""

import functools
from dataclasses import dataclass

from inq_ray.models.weight_files import is_weights_file
from inq_ray.training.config.option import option

_option = functools.partial(option, sweep=False)


def is_weights_name(weights: str) -> bool:
    """Return whether weights are those that torchvision or timm calls so, and no file."""
    return bool(weights) and not is_weights_file(weights)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Which network is quantized."""

    arch: str = _option(
        "digits_cnn",
        "Network: torchvision's name, timm/NAME, cifar_resnet20 (to 110), digits_cnn, or your own as module:function.",
        aliases=("-a",),
        is_first=True,
    )
    weights: str | None = _option(
        None,
        "Trained weights: a file (.safetensors, or a state dict), or torchvision's or timm's name, such as DEFAULT.",
        in_stage_key=False,  # the weights are
        path=is_weights_name,
        is_first=True,
    )
    replace_head: bool = _option(
        False, "Take weights of a network with another number of classes, all but the last layer's, which starts fresh."
    )
