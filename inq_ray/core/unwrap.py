"""Removal of the wrappers DistributedDataParallel and torch.compile from networks and parameter names."""

import sys
from contextlib import AbstractContextManager, nullcontext

import torch
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


def uncompiled() -> AbstractContextManager[None]:
    """Return a context in which compiled networks run as they were written, so that hooks of layers are called."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and importing it takes seconds
        return nullcontext()
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


def plain_name(name: str) -> str:
    """Return a name without the parts that torch.compile adds for a submodule."""
    return ".".join(part for part in name.split(".") if part != _COMPILED)
