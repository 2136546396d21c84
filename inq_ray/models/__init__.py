"""Networks by name, their weights from files, and which of their weights are quantized.

    selection      param_groups: which weights become powers of two, to how many bits
    registry       create, check_arch: torchvision's classification networks and our own small ones by name
    resnet_cifar   the ResNets for CIFAR of He et al. 2016
    digits_cnn     a small network for 8x8 digits
    weights        load_weights: safetensors, or a state dict by torch's weights-only loader

`param_groups` needs torch only; torchvision is imported when a network of its is asked for.
"""

from inq_ray.models.registry import check_arch, create
from inq_ray.models.selection import param_groups, unwrap
from inq_ray.models.weights import load_weights

__all__ = ["check_arch", "create", "load_weights", "param_groups", "unwrap"]
