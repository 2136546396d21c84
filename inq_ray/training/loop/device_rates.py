"""Learning rates as the optimizer's step reads them on a GPU: float32, as numbers or from tensors of the device.

Torch's fused step multiplies by the learning rate in float64. A rate in a tensor is float32, which differs from the
same rate as a float by rounding. So on GPUs every step's rates are rounded to float32 first: then both are the same
number in the same kernel (FusedSgdKernel.cu), and a step in a CUDA graph, which needs the tensors, has the bits of one
outside it. On CPUs nothing is rounded.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from inq_ray.core.optim.sgd import SGD


def round_rates(optimizer: SGD) -> None:
    """Round the learning rates of all groups to float32; a rounded one stays what it is."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device="cpu").item()


class DeviceRates:
    """Learning rates of an optimizer in tensors on a device, from which a recorded step reads those of each replay.

    Args:
        optimizer: Optimizer whose groups have rates as floats; schedules and checkpoints see only those.
        device: Device of its parameters.
    """

    def __init__(self, optimizer: SGD, device: torch.device) -> None:
        self._optimizer = optimizer
        self._tensors: list[Tensor] = [
            torch.empty((), dtype=torch.float32, device=device) for _ in optimizer.param_groups
        ]

    def fill(self) -> None:
        """Copy the current rates into the tensors, without waiting for the device; called before each step."""
        for tensor, group in zip(self._tensors, self._optimizer.param_groups, strict=True):
            tensor.fill_(group["lr"])

    @contextlib.contextmanager
    def read(self) -> Iterator[None]:
        """Let steps within the block read their rates from the tensors."""
        rates = [group["lr"] for group in self._optimizer.param_groups]
        self._set(self._tensors)
        try:
            yield
        finally:
            self._set(rates)

    def _set(self, rates: list[Tensor] | list[float]) -> None:
        for rate, group in zip(rates, self._optimizer.param_groups, strict=True):
            group["lr"] = rate
