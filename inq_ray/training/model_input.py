"""From stored images to what a network takes, on the device."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ModelInput:
    """Scales to [0, 1] and normalizes.

    Attributes:
        mean: float32 [C], of images in [0, 1].
        std: float32 [C].
        device: where the network is; images travel there as uint8.
        memory_format: of the result.
    """

    mean: Tensor
    std: Tensor
    device: torch.device
    memory_format: torch.memory_format

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] anywhere -> float32 [N, C, H, W] on the device."""
        scale = (255 * self.std).to(self.device).view(1, -1, 1, 1)
        shift = (self.mean / self.std).to(self.device).view(1, -1, 1, 1)
        scaled = images.to(self.device, non_blocking=True).to(torch.float32, memory_format=self.memory_format)
        return scaled.div_(scale).sub_(shift)
