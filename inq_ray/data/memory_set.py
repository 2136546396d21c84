"""A split that is decoded and kept in memory."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from inq_ray.data.augment.crop_flip import Augmentation
from inq_ray.data.image_set import Samples
from inq_ray.data.preset import Policy


@dataclass(frozen=True)
class ImageSet:
    """One split, decoded. Both tensors may be read-only mappings of a file: copy before writing.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        augmentation: Crop and flip of whole batches in training.
        policy: What training does then, image by image: auto_augment and random_erasing.
        mean: Of each channel: the colour of what is erased.
    """

    images: Tensor
    labels: Tensor
    augmentation: Augmentation
    policy: Policy = field(default_factory=Policy)
    mean: tuple[float, ...] = ()

    @property
    def groups(self) -> None:
        """None: memory is read in any order."""
        return

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, samples: Tensor, augment: tuple[int, int] | None) -> Samples:
        """Copy some samples, by one vectorized access; see :meth:`Images.fetch`."""
        images = self.images.index_select(0, samples)
        if augment is not None and len(samples):
            images = self.augmentation(images, samples, *augment)
            if self.policy.changes_pixels:
                from inq_ray.data.augment.policy import apply_policy  # torchvision, which takes seconds

                changed = [
                    apply_policy(image, self.policy, self.mean, sample, *augment)
                    for image, sample in zip(images, samples.tolist(), strict=True)
                ]
                images = torch.stack(changed)
        return Samples(images, self.labels.index_select(0, samples))
