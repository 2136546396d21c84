"""A split that is decoded and kept in memory."""

from dataclasses import dataclass

from torch import Tensor

from inq_ray.data.augment.crop_flip import Augmentation
from inq_ray.data.image_set import Samples


@dataclass(frozen=True)
class ImageSet:
    """One split, decoded. Both tensors may be read-only mappings of a file: copy before writing.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        augmentation: What training does to images.
    """

    images: Tensor
    labels: Tensor
    augmentation: Augmentation

    @property
    def groups(self) -> None:
        """None: memory is read in any order."""
        return

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, samples: Tensor, augment: tuple[int, int] | None) -> Samples:
        """Copy some samples, by one vectorized access; see :meth:`Images.fetch`."""
        images = self.images.index_select(0, samples)
        if augment is not None:
            images = self.augmentation(images, samples, *augment)
        return Samples(images, self.labels.index_select(0, samples))
