"""A split that is decoded and kept in memory."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from inq_ray.data.augment.crop_flip import CropFlip
from inq_ray.data.image_set import Samples
from inq_ray.data.preprocessing import Augmentation


@dataclass(frozen=True)
class ImageSet:
    """A decoded split on any device. Both tensors may be read-only mappings of a file: copy before writing.

    Samples are gathered, cropped and mirrored on that device by the same random numbers, so bits do not depend on it.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        crop_flip: Crop and flip of whole batches, for training.
        augmentation: Per-image augmentation for training: auto_augment and random_erasing.
        mean: Mean per channel: the color of erased rectangles.
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

    @property
    def num_bytes(self) -> int:
        """Size of images and labels."""
        return self.images.nbytes + self.labels.nbytes

    def to(self, device: torch.device) -> "ImageSet":
        """Return the set on a device; its samples are there too. Only sets without per-image augmentation can be."""
        assert not self.augmentation.changes_pixels
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def fetch(self, samples: Tensor, augment: tuple[int, int] | None) -> Samples:
        """Copy some samples with one vectorized access; see :meth:`Images.fetch`."""
        here = samples.to(self.images.device, non_blocking=True)
        images = self.images.index_select(0, here)
        if augment is not None and len(samples):
            images = self.crop_flip(images, samples, *augment)
            if self.augmentation.changes_pixels:
                from inq_ray.data.augment.auto_augment import augment_image  # imports torchvision, which takes seconds

                changed = [
                    augment_image(image, self.augmentation, self.mean, sample, *augment)
                    for image, sample in zip(images, samples.tolist(), strict=True)
                ]
                images = torch.stack(changed)
        return Samples(images, self.labels.index_select(0, here))
