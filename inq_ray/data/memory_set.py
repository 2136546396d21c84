"""A split that is decoded and kept in memory."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from inq_ray.data.augment.crop_flip import CropFlip
from inq_ray.data.image_set import Samples
from inq_ray.data.preprocessing import Augmentation


@dataclass(frozen=True)
class ImageSet:
    """A decoded split. Both tensors may be read-only mappings of a file: copy before writing.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        crop_flip: Crop and flip of whole batches, for training.
        augmentation: Per-image augmentation for training: auto_augment and random_erasing.
        mean: Mean per channel: the colour of erased rectangles.
    """

    images: Tensor
    labels: Tensor
    crop_flip: CropFlip
    augmentation: Augmentation = field(default_factory=Augmentation)
    mean: tuple[float, ...] = ()

    @property
    def groups(self) -> None:
        """None: memory can be read in any order."""
        return

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, samples: Tensor, augment: tuple[int, int] | None) -> Samples:
        """Copy some samples with one vectorized access; see :meth:`Images.fetch`."""
        images = self.images.index_select(0, samples)
        if augment is not None and len(samples):
            images = self.crop_flip(images, samples, *augment)
            if self.augmentation.changes_pixels:
                from inq_ray.data.augment.auto_augment import augment_image  # imports torchvision, which takes seconds

                changed = [
                    augment_image(image, self.augmentation, self.mean, sample, *augment)
                    for image, sample in zip(images, samples.tolist(), strict=True)
                ]
                images = torch.stack(changed)
        return Samples(images, self.labels.index_select(0, samples))
