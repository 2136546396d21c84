"""Images as encoded files, read, decoded and transformed on demand."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from inq_ray.data.augment.image_transform import ImageTransform
from inq_ray.data.encoded import Encoded, Reader
from inq_ray.data.image_set import BadImage, Samples


@dataclass(frozen=True)
class EncodedSet:
    """A split whose images are decoded on demand.

    Attributes:
        reader: The encoded images.
        transform: Transform from bytes to pixels of one size.
    """

    reader: Reader
    transform: ImageTransform

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """The reader's groups."""
        return self.reader.groups

    def __len__(self) -> int:
        return len(self.reader)

    def fetch(self, samples: Tensor, augment: tuple[int, int] | None) -> Samples:
        """Read, decode and transform some samples; see :meth:`inq_ray.data.image_set.Images.fetch`."""
        return self.decode_files(self.read_files(samples), augment)

    def read_files(self, samples: Tensor) -> list[tuple[int, Encoded]]:
        """Read some samples, in order; each with its index."""
        return list(zip(samples.tolist(), self.reader.read(samples.numpy()), strict=True))

    def decode_files(self, read: Iterable[tuple[int, Encoded]], augment: tuple[int, int] | None) -> Samples:
        """Decode and transform what `read_files` has returned, or a part of it."""
        images: list[Tensor] = []
        labels: list[int] = []
        bad: list[BadImage] = []
        for sample, encoded in read:
            try:
                images.append(self._pixels(encoded, sample, augment))
                labels.append(encoded.label)
            except ValueError as error:
                bad.append(BadImage(sample, encoded.name, str(error)))
        preprocessing = self.transform.preprocessing
        size = preprocessing.train_size if augment is not None else preprocessing.crop_size
        # Interleaved channels, as decoders write them and channels-last convolutions need them.
        pixels = [image.permute(1, 2, 0) for image in images]
        # In a loader worker this writes into memory shared with the rank's process.
        none = torch.empty(0, size, size, self.transform.channels, dtype=torch.uint8)
        stacked: Tensor = default_collate(pixels) if pixels else none
        return Samples(stacked.permute(0, 3, 1, 2), torch.tensor(labels, dtype=torch.int64), tuple(bad))

    def _pixels(self, encoded: Encoded, sample: int, augment: tuple[int, int] | None) -> Tensor:
        if encoded.data is None:
            raise ValueError(encoded.error)
        if augment is None:
            return self.transform.evaluate(encoded.data)
        return self.transform.train(encoded.data, sample, *augment)
