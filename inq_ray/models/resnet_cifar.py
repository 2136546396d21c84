"""The ResNets for CIFAR of He et al. 2016 (arXiv 1512.03385, section 4.2): 6n + 2 layers with 16, 32 and 64 channels.

Parameter names are those of akamaster/pytorch_resnet_cifar10: `conv1`, `bn1`, `layer{1,2,3}.{i}.{conv1,bn1,conv2,bn2}`,
`linear`. Shortcuts have no weights ("option A"): where the shape changes they take every second pixel and pad a quarter
of the new channels with zeros on each side.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

DEPTHS = (20, 32, 44, 56, 110)


class Block(nn.Module):
    """Two 3x3 convolutions, float [N, in_channels, H, W] -> [N, out_channels, H / stride, W / stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.changes_shape = stride != 1 or in_channels != out_channels
        self.side = out_channels // 4

    def shortcut(self, x: Tensor) -> Tensor:
        """Return the block's input in the shape of its output."""
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.side, self.side)) if self.changes_shape else x

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNetCifar(nn.Module):
    """A CIFAR ResNet: float [N, in_channels, 32, 32] (normalized) -> logits [N, num_classes].

    Args:
        depth: Number of layers, 6n + 2: one of `DEPTHS`.
        num_classes: Number of logits.
        in_channels: Channels of the images.
    """

    def __init__(self, depth: int, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        assert depth % 6 == 2, depth
        num_blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _layer(num_blocks, 16, 16, stride=1)
        self.layer2 = _layer(num_blocks, 16, 32, stride=2)
        self.layer3 = _layer(num_blocks, 32, 64, stride=2)
        self.linear = nn.Linear(64, num_classes)
        self.apply(_initialize)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(torch.flatten(functional.adaptive_avg_pool2d(out, 1), 1))
        return logits


def _layer(num_blocks: int, in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    first = Block(in_channels, out_channels, stride)
    return nn.Sequential(first, *(Block(out_channels, out_channels, 1) for _ in range(num_blocks - 1)))


def _initialize(module: nn.Module) -> None:
    """Initialize as He et al. 2015 (arXiv 1502.01852), as in the paper's section 3.4."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
