"""Quantized networks for the tests of ONNX files."""

from torch import nn

from inq_ray.core.channels import Per
from inq_ray.core.codebook import Levels
from inq_ray.core.stage import apply, decide
from inq_ray.core.state import TensorState
from inq_ray.export.packed.reader import PackedTensor
from inq_ray.models.selection import choose

DIGEST = "0123456789abcdef" * 4


def codes_of(network: nn.Module, bits: int, levels: Levels = "paper", per: Per = "tensor") -> dict[str, PackedTensor]:
    """Quantize every weight of a network in place; return the codes."""
    found = {}
    for name in choose(network, bits):
        weight = network.get_parameter(name)
        state = TensorState.live(weight, bits, levels, per)
        apply(weight, state, decide(weight, state, 1.0, name=name, strategy="pruning", seed=0, stage=0))
        found[name] = PackedTensor(codebook=state.codebook, codes=state.codes, num_bytes=0)
    return found


def with_statistics(network: nn.Module) -> nn.Module:
    """BatchNorm that would change weights if it were folded into them."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network
