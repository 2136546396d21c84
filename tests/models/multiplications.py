"""Which parameters of a network are multiplied with: an answer to "what is quantized" that knows no module's type."""

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Where the factors of a multiplication by a matrix or a convolution stand among an operator's arguments.
_FACTORS = {
    aten.convolution.default: (0, 1),
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.baddbmm.default: (1, 2),
    aten.mv.default: (0, 1),
    aten.addmv.default: (1, 2),
}


class _Multiplications(TorchDispatchMode):
    """Notes the storages of what is multiplied; a transposed or reshaped parameter is still in its storage."""

    def __init__(self) -> None:
        super().__init__()
        self.factors: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for position in _FACTORS.get(func, ()):
            self.factors.add(_storage(args[position]))
        return func(*args, **(kwargs or {}))


def multiplied(model: nn.Module, image_size: int, in_channels: int = 3) -> set[str]:
    """Run a network on the meta device, and return the names of the parameters that are factors of a multiplication."""
    images = torch.empty(2, in_channels, image_size, image_size, device="meta")
    noted = _Multiplications()
    with noted:
        model.to("meta").train()(images)
    return {name for name, parameter in model.named_parameters() if _storage(parameter) in noted.factors}


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
