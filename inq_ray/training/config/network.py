"""Which network."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The network."""

    arch: str = "digits_cnn"
    """A network of torchvision, timm/NAME, cifar_resnet20 (to 110), digits_cnn, or your own as module:function."""
    weights: str | None = None
    """File of trained weights (.safetensors, or a state dict), or torchvision's or timm's name, such as DEFAULT."""
    replace_head: bool = False
    """Take weights of another number of classes, all but the last layer's, which starts fresh."""
