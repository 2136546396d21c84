"""From stored images to the network's input, on the device."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class ModelInput:
    """Scales images to [0, 1] and normalizes them.

    Attributes:
        mean: float32 [C], for images in [0, 1].
        std: float32 [C].
        device: Device of the network; images are sent there as uint8.
        memory_format: Memory format of the result.
    """

    mean: Tensor
    std: Tensor
    device: torch.device
    memory_format: torch.memory_format
    _scale: Tensor = field(init=False, repr=False)
    _shift: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Once: copying these small tensors for each batch would make the host wait for the GPU.
        object.__setattr__(self, "_scale", (255 * self.std).to(self.device).view(1, -1, 1, 1))
        object.__setattr__(self, "_shift", (self.mean / self.std).to(self.device).view(1, -1, 1, 1))

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 [N, C, H, W] on the device from uint8 [N, C, H, W] on any device."""
        scaled = images.to(self.device, non_blocking=True).to(torch.float32, memory_format=self.memory_format)
        return scaled.div_(self._scale).sub_(self._shift)
