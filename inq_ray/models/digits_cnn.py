"""A small network for handwritten digits of 8x8 pixels: trained in seconds on a CPU, what the demo quantizes."""

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
            nn.AdaptiveAvgPool2d(2),
        )
        self.classifier = nn.Linear(64 * 2 * 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        logits: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return logits


def _convolution(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
