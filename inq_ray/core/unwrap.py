"""Removal of the wrappers DistributedDataParallel and torch.compile from networks and parameter names."""

from torch import nn

_COMPILED = "_orig_mod"


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside DistributedDataParallel, DataParallel and torch.compile, or `model` itself."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, _COMPILED, None), nn.Module):
            model = inner
        else:
            return model


def plain_name(name: str) -> str:
    """Return a name without the parts that torch.compile adds for a submodule."""
    return ".".join(part for part in name.split(".") if part != _COMPILED)
