"""Mixup and CutMix for whole batches, by torchvision; randomness is a function of (seed, epoch, step, rank)."""

import math

import numpy as np
from torch import Tensor

from inq_ray.data.seeded import counter_hash, seeded


class BatchMix:
    """Mixes each image of a batch with its neighbor, and their labels likewise.

    Mixup adds two images with weights that sum to 1 (Zhang et al. 2018, arXiv 1710.09412); CutMix pastes a rectangle
    (Yun et al. 2019, arXiv 1905.04899). If both are on, each batch gets one of them with equal probability, as in
    torchvision's references/classification/train.py.

    Args:
        mixup_alpha: Parameter of Beta(alpha, alpha), from which Mixup's weight is drawn; 0 = no Mixup.
        cutmix_alpha: The same for the area that CutMix keeps; 0 = no CutMix.
        num_classes: Labels are 0 to num_classes - 1.

    Raises:
        ValueError: Both are 0, or one is negative or not finite.
    """

    def __init__(self, mixup_alpha: float, cutmix_alpha: float, num_classes: int) -> None:
        for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
            if not (math.isfinite(alpha) and alpha >= 0):
                raise ValueError(f"{name} must be 0 (off) or above, got {alpha}")
        from torchvision.transforms import v2  # takes seconds, and most runs do not mix

        transforms: list[v2.Transform] = []
        if mixup_alpha > 0:
            transforms.append(v2.MixUp(alpha=mixup_alpha, num_classes=num_classes))
        if cutmix_alpha > 0:
            transforms.append(v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes))
        if not transforms:
            raise ValueError("mixup_alpha and cutmix_alpha are both 0: set one of them above 0")
        self._transform = v2.RandomChoice(transforms)

    def __call__(self, images: Tensor, labels: Tensor, key: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
        """Return mixed images and labels, as new tensors; torch's generator is not changed.

        Args:
            images: float [n, C, H, W], on any device.
            labels: int64 [n], on the same device.
            key: (seed, epoch, step, rank), which determines the random numbers; step and rank are not negative.

        Returns:
            float [n, C, H, W] of the images' dtype; float32 [n, num_classes] whose rows sum to 1.
        """
        seed, epoch, step, rank = key
        of_step = int(counter_hash("batch_mix", seed, epoch, np.array([step]))[0])
        with seeded("batch_mix", of_step, 0, rank):
            mixed, soft = self._transform(images, labels)
        return mixed, soft
