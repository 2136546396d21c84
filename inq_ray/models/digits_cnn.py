"""Small network for handwritten digits of 8x8 pixels, trained in seconds on a CPU; used by the demo."""

import torch
from torch import Tensor, nn


class DigitsCNN(nn.Module):
    """Three 3x3 convolutions with BatchNorm, a linear layer: float [N, in_channels, 8, 8] -> logits [N, num_classes].

    About 26,000 weights. Other sizes than 8x8 work: the last convolution's map is pooled to 2x2.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of the images.
    """

    def __init__(self, *, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(in_channels, 16),
            *_convolution(16, 32),
            nn.MaxPool2d(2),
            *_convolution(32, 64),
            MeanOfQuarters(),
        )
        self.classifier = nn.Linear(64 * 2 * 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        logits: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return logits


class MeanOfQuarters(nn.Module):
    """Average pooling to 2x2: float [N, C, H, W] -> [N, C, 2, 2].

    Even sizes are pooled by windows that do not overlap: on GPUs the gradient of torch's adaptive pooling has no fixed
    order of summation, so runs would not be reproducible bit for bit.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        height, width = x.shape[-2:]
        if height % 2 or width % 2:
            return nn.functional.adaptive_avg_pool2d(x, 2)
        return nn.functional.avg_pool2d(x, (height // 2, width // 2))


def _convolution(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
