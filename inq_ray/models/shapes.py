"""Shapes of a network's tensors, found without allocating them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from inq_ray.models.registry import create, is_own

# Functions that create parameters and buffers. Numbers that a network is built from (torch.arange, torch.linspace in
# regnets and swin) stay real, so this is not simply `torch.device("meta")`.
_MAKERS = frozenset({torch.empty, torch.ones, torch.rand, torch.randn, torch.zeros})


class without_data(TorchFunctionMode):  # noqa: N801  # used as a context, as torch.no_grad is
    """Context in which new tensors have shapes but no data; the random generator is not advanced."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _MAKERS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def shapes(arch: str, *, num_classes: int, in_channels: int = 3) -> dict[str, torch.Size]:
    """Return the shapes of a network's parameters and buffers by name, as in its state dict.

    Libraries' networks are built without data; a user's own is built normally, since its function may do anything.

    Raises:
        ValueError: As in `create`.
    """
    options = {"num_classes": num_classes, "in_channels": in_channels}
    with torch.random.fork_rng(devices=[]):
        if is_own(arch):
            return _shapes(create(arch, **options))
        try:
            with without_data():
                return _shapes(create(arch, **options))
        except (NotImplementedError, RuntimeError):  # a few of timm's compute with values that they have just created
            return _shapes(create(arch, **options))


def head_parameters(arch: str, in_channels: int = 3) -> frozenset[str]:
    """Return the names of tensors that depend on the number of classes: those of the last layer or layers.

    Args:
        arch: A name as in `create`.
        in_channels: Channels of the images.

    Raises:
        ValueError: As in `create`; or no tensor depends on it: a user's function without num_classes.
    """
    few = shapes(arch, num_classes=10, in_channels=in_channels)
    more = shapes(arch, num_classes=11, in_channels=in_channels)
    head = frozenset(name for name in few.keys() | more.keys() if few.get(name) != more.get(name))
    if not head:
        raise ValueError(
            f"{arch=} is the same for any number of classes, so there is no head to replace: add the argument "
            "num_classes to its function"
        )
    return head


def _shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
