"""Images as encoded files; JPEGs among them are decoded and transformed on the network's device."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inq_ray.data.augment.image_transform import Crop
from inq_ray.data.decode import nvjpeg
from inq_ray.data.encoded import Encoded
from inq_ray.data.encoded_set import EncodedSet
from inq_ray.data.image_set import BadImage, Samples

# Images that are shrunk by a larger factor are left to the CPU: torch's kernel for GPUs needs much fast memory then.
_LARGEST_FACTOR = 8


class Jpeg(NamedTuple):
    """A JPEG that is decoded on the device.

    Attributes:
        sample: Its index in its set.
        name: Its file, with the row if a file has several images.
        label: Its class.
        num_bytes: Size of its file.
        crop: What becomes of it.
    """

    sample: int
    name: str
    label: int
    num_bytes: int
    crop: Crop


@dataclass(frozen=True)
class ReadImages:
    """Samples as loader workers hand them over to the rank's process.

    Attributes:
        augment: Seed and epoch for training; None = as in validation.
        jpegs: Each sample in order: a JPEG, or None for the next of the others.
        files: uint8 [bytes], the files of the JPEGs, one after another.
        others: Samples that were decoded on the CPU.
    """

    augment: tuple[int, int] | None
    jpegs: list[Jpeg | None]
    files: Tensor
    others: Samples


@dataclass(frozen=True)
class JpegSet:
    """A split whose JPEGs are decoded on a device: nvJPEG's pixels on a GPU, and the same crops as in an `EncodedSet`.

    Loader workers read files and decode those that are not for nvJPEG. The rank's process decodes the others in
    batches. Those that nvJPEG refuses are decoded on the CPU, whose verdict counts.

    Attributes:
        images: The same images, decoded on the CPU; without auto-augmentation and random erasing.
        device: Device on which JPEGs are decoded, and of the result.
    """

    images: EncodedSet
    device: torch.device

    def __post_init__(self) -> None:
        assert not self.images.transform.augmentation.changes_pixels

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """The reader's groups."""
        return self.images.groups

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, samples: Tensor, augment: tuple[int, int] | None) -> Samples:
        """Read, decode and transform some samples; see :meth:`inq_ray.data.image_set.Images.fetch`."""
        return self.decode(self.read(samples, augment))

    def read(self, samples: Tensor, augment: tuple[int, int] | None) -> ReadImages:
        """Read some samples, and decode those that are not for nvJPEG; see `fetch` for the arguments."""
        read = self.images.read_files(samples)
        jpegs = [self._jpeg(encoded, sample, augment) for sample, encoded in read]
        files = [encoded.data for (_, encoded), jpeg in zip(read, jpegs, strict=True) if jpeg and encoded.data]
        others = self.images.decode_files(
            (each for each, jpeg in zip(read, jpegs, strict=True) if jpeg is None), augment
        )
        bad = {each.sample for each in others.bad}
        kept = [jpeg for (sample, _), jpeg in zip(read, jpegs, strict=True) if jpeg or sample not in bad]
        joined = torch.frombuffer(bytearray().join(files), dtype=torch.uint8) if files else torch.empty(0).byte()
        return ReadImages(augment, kept, joined, others)

    def decode(self, read: ReadImages) -> Samples:
        """Decode and transform what `read` has returned, on the device."""
        images: list[Tensor] = []
        labels: list[int] = []
        bad = list(read.others.bad)
        with nvjpeg.own_stream(self.device):
            none = read.others.images[:0].to(self.device)
            others = zip(read.others.images.to(self.device), read.others.labels.tolist(), strict=True)
            decoded = self._decoded(read)
            for jpeg in read.jpegs:
                image, label = next(others) if jpeg is None else (next(decoded), jpeg.label)
                if isinstance(image, BadImage):
                    bad.append(image)
                else:
                    images.append(image)
                    labels.append(label)
            pixels = torch.stack(images) if images else none
        return Samples(nvjpeg.handed_over(pixels), torch.tensor(labels, dtype=torch.int64), tuple(bad))

    def _jpeg(self, encoded: Encoded, sample: int, augment: tuple[int, int] | None) -> Jpeg | None:
        """Return what the device makes of an image; None if the CPU decodes it, or finds out why it cannot be read."""
        if encoded.data is None or not nvjpeg.takes(encoded.data):
            return None
        try:
            crop = self.images.transform.crop(encoded.data, sample, augment)
        except ValueError:
            return None
        preprocessing = self.images.transform.preprocessing
        if crop.box is None:
            factor = min(crop.height, crop.width) / preprocessing.resize_size
        else:
            factor = max(crop.box.height, crop.box.width) / preprocessing.train_size
        return None if factor > _LARGEST_FACTOR else Jpeg(sample, encoded.name, encoded.label, len(encoded.data), crop)

    def _decoded(self, read: ReadImages) -> Iterator[Tensor | BadImage]:
        """Yield each JPEG as uint8 [C, S, S], or why it could not be decoded."""
        jpegs = [jpeg for jpeg in read.jpegs if jpeg is not None]
        files = torch.split(read.files, [jpeg.num_bytes for jpeg in jpegs])
        for part in _parts(jpegs):
            decoded = nvjpeg.decode_batch(list(files[part]), self.device)
            for jpeg, file, pixels in zip(jpegs[part], files[part], decoded, strict=True):
                if pixels is not None and pixels.shape[1:] == (jpeg.crop.height, jpeg.crop.width):
                    yield self.images.transform.apply(pixels, jpeg.crop)
                else:
                    yield self._decoded_here(jpeg, file, read.augment)

    def _decoded_here(self, jpeg: Jpeg, file: Tensor, augment: tuple[int, int] | None) -> Tensor | BadImage:
        """Decode on the CPU a JPEG that the device has refused."""
        encoded = Encoded(jpeg.name, file.numpy().tobytes(), jpeg.label)
        samples = self.images.decode_files([(jpeg.sample, encoded)], augment)
        return samples.bad[0] if samples.bad else samples.images[0].to(self.device)


def _parts(jpegs: list[Jpeg]) -> Iterator[slice]:
    """Yield the JPEGs, in order, in parts that are decoded at once: as many as the memory for their pixels allows."""
    start = num_pixels = 0
    for place, jpeg in enumerate(jpegs):
        size = jpeg.crop.height * jpeg.crop.width
        if place > start and num_pixels + size > nvjpeg.MAX_PIXELS_AT_ONCE:
            yield slice(start, place)
            start, num_pixels = place, 0
        num_pixels += size
    if jpegs:
        yield slice(start, len(jpegs))
