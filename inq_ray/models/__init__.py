"""Networks by name, their trained weights, and which of their weights are quantized.

    registry              create, check_arch: networks by name, whosever they are
    resnet_cifar          the ResNets for CIFAR of He et al. 2016
    digits_cnn            a small network for 8x8 digits
    torchvision_networks  torchvision's classification networks and the names of their weights
    timm_networks         timm's (extra `timm`)
    own_network           package.module:function
    pretrained            resolve_weights: --weights, a file or a name, becomes a file
    download              once per node, into torch.hub's folder
    weight_files          safetensors, or a state dict by torch's weights-only loader
    weights               load_weights: a file into a network
    recognition           which network a file looks like, for messages
    shapes                head_parameters: what depends on the number of classes
    preset                input_preset: the images that trained weights want to see
    selection             param_groups: which weights become powers of two, to how many bits
    layers                describe: the same as a table

`param_groups` needs torch and safetensors; torchvision and timm are imported when a network of theirs is asked for.
"""

from inq_ray.models.layers import LayerRow, LayerSum, describe, sums
from inq_ray.models.preset import InputPreset, input_preset
from inq_ray.models.pretrained import resolve_weights
from inq_ray.models.registry import check_arch, create
from inq_ray.models.selection import param_groups, unwrap
from inq_ray.models.shapes import head_parameters
from inq_ray.models.weight_files import is_weights_file
from inq_ray.models.weights import Loaded, load_weights

__all__ = [
    "InputPreset",
    "LayerRow",
    "LayerSum",
    "Loaded",
    "check_arch",
    "create",
    "describe",
    "head_parameters",
    "input_preset",
    "is_weights_file",
    "load_weights",
    "param_groups",
    "resolve_weights",
    "sums",
    "unwrap",
]
