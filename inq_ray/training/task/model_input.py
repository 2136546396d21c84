"""From stored images to what a network takes, on the device."""

from dataclasses import dataclass, field

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
    _scale: Tensor = field(init=False, repr=False)
    _shift: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Once: copying them at each batch, as small as they are, would make the host wait for a GPU.
        object.__setattr__(self, "_scale", (255 * self.std).to(self.device).view(1, -1, 1, 1))
        object.__setattr__(self, "_shift", (self.mean / self.std).to(self.device).view(1, -1, 1, 1))

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] anywhere -> float32 [N, C, H, W] on the device."""
        scaled = images.to(self.device, non_blocking=True).to(torch.float32, memory_format=self.memory_format)
        return scaled.div_(self._scale).sub_(self._shift)
