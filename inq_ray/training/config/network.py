"""Options for the network."""

import functools
from dataclasses import dataclass
from typing import Any

from inq_ray.models.weights.files import is_weights_file
from inq_ray.training.config.option import Affects, Phase, Unused, option

_option = functools.partial(option, sweep=False)


def is_weights_name(weights: str) -> bool:
    """Return whether weights are a name of torchvision or timm rather than a file."""
    return bool(weights) and not is_weights_file(weights)


def _is_trained_first(config: Any) -> bool:
    return bool(config.float_epochs)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The network to quantize."""

    arch: str = _option(
        "digits_cnn",
        "Network: torchvision's name, timm/NAME, cifar_resnet20 (to 110), digits_cnn, or your own as module:function.",
        aliases=("-a",),
        is_first=True,
    )
    weights: str | None = _option(
        None,
        "Trained weights: a file (.safetensors, or a state dict), or a name of torchvision or timm, such as DEFAULT.",
        in_stage_key=False,  # the weights themselves are
        path=is_weights_name,
        is_first=True,
    )
    replace_head: bool = _option(
        False, "Load weights of a network with other classes: all but the last layer, which is initialized at random."
    )
    accept_float_accuracy: bool = _option(
        False,
        "Quantize given weights of any accuracy; default: refuse accuracies near chance, or more than 5 points below "
        "the published one.",
        affects=Affects.NOTHING,
        phase=Phase.STAGES,
        unused=(
            Unused(
                when=_is_trained_first,
                why="has no effect with --float-epochs: networks trained by the run are always quantized",
            ),
        ),
    )
