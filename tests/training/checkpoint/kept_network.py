"""The network of the checkpoints in `kept/`: small, with everything that a checkpoint keeps. It never changes."""

import torch
from torch import nn


def tiny(num_classes: int, in_channels: int) -> nn.Module:
    """For digits: a convolution, BatchNorm and a layer, 1500 parameters."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, num_classes)
    )
