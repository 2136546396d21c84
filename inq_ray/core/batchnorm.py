"""BatchNorm after a layer: which one follows it, and statistics that undo a scale and a mean error of its outputs."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def followers(network: nn.Module, example: Tensor, modules: Iterable[nn.Module]) -> dict[nn.Module, _BatchNorm]:
    """Return the BatchNorm that gets the output of a module, for modules that are called once."""
    found: dict[nn.Module, _BatchNorm] = {}
    outputs: list[tuple[Tensor, nn.Module]] = []

    def called(module: nn.Module, _: tuple[Any, ...], output: Tensor) -> None:
        outputs.append((output, module))

    def normalizes(batchnorm: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(batchnorm, _BatchNorm)
        found.update({module: batchnorm for output, module in outputs if output is args[0]})

    handles = [module.register_forward_hook(called) for module in modules]
    handles += [
        module.register_forward_pre_hook(normalizes)
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.running_var is not None
    ]
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    calls = Counter(module for _, module in outputs)
    shared = {batchnorm for batchnorm, count in Counter(found.values()).items() if count > 1}
    return {module: batchnorm for module, batchnorm in found.items() if calls[module] == 1 and batchnorm not in shared}


@torch.no_grad()
def takes_any_scale(network: nn.Module, example: Tensor, module: nn.Module, batchnorm: _BatchNorm) -> bool:
    """Return whether BatchNorm undoes a scale of a layer's outputs: whether nothing else reads them."""
    assert batchnorm.running_var is not None
    assert batchnorm.running_mean is not None
    expected = network(example)
    if not isinstance(expected, Tensor):
        return False
    own = [param for param in (module.weight, module.bias) if isinstance(param, Tensor)]
    kept = [(each, each.clone()) for each in (*own, batchnorm.running_mean, batchnorm.running_var)]
    for param in (*own, batchnorm.running_mean):
        param.mul_(2)
    batchnorm.running_var.add_(batchnorm.eps).mul_(4).sub_(batchnorm.eps)
    found = network(example)
    for tensor, value in kept:
        tensor.copy_(value)
    return torch.allclose(found, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))


@torch.no_grad()
def adjust(batchnorm: _BatchNorm, before: _BatchNorm, mean_before: Tensor, mean_now: Tensor, scales: Tensor) -> None:
    """Change BatchNorm's statistics so that they undo scale and mean error of its inputs.

    It computed (y - mean) / sqrt(variance + eps) from the float network's outputs y. Now it gets outputs z, and
    scale · z is close to y except for the mean.
    """
    assert batchnorm.running_mean is not None
    assert batchnorm.running_var is not None
    assert before.running_mean is not None
    assert before.running_var is not None
    variance = (before.running_var.double() + before.eps) / scales**2 - before.eps
    batchnorm.running_var.copy_(variance.clamp_min(0))
    batchnorm.running_mean.copy_(mean_now - (mean_before - before.running_mean.double()) / scales)
