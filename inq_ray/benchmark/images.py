"""Random images in memory, for steps without input."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from inq_ray.data.image_set import Samples, SourceInfo, Split
from inq_ray.models.eval_transform import eval_transform
from inq_ray.models.registry import is_ours
from inq_ray.training.config import RunConfig

NAME = "random images"
# Of networks of this package, which are made for small images: channels and side.
_SMALL = {"digits_cnn": (1, 8)}
_CIFAR = (3, 32)


@dataclass(frozen=True)
class RandomImages:
    """A split of generated images; all have label 0, which every network has.

    Attributes:
        images: uint8 [n, C, H, W], at least as many as in a request; each returns the first ones, without a copy.
        num: Number of samples.
    """

    images: Tensor
    num: int
    groups: None = None

    def __len__(self) -> int:
        return self.num

    def fetch(self, samples: Tensor, augment: tuple[int, int] | None) -> Samples:  # noqa: ARG002, as every split
        """Return some images."""
        assert len(samples) <= len(self.images), (len(samples), len(self.images))
        return Samples(self.images[: len(samples)], torch.zeros(len(samples), dtype=torch.int64))


@dataclass(frozen=True)
class RandomSource:
    """A source of generated images.

    Attributes:
        info: Facts, of the real data if there are some.
        size: Height and width of training images, pixels.
        num_made: Number of different images.
    """

    info: SourceInfo
    size: tuple[int, int]
    num_made: int
    notes: tuple[str, ...] = ()

    def peek(self, split: Split) -> Samples:
        """Return a few images."""
        return self.split(split).fetch(torch.arange(2), None)

    def split(self, split: Split) -> RandomImages:
        """Return the images of a split, which has as many as the facts say."""
        shape = (self.num_made, self.info.channels, *self.size)
        images = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        return RandomImages(images, self.info.num_train if split == "train" else self.info.num_test)


def random_source(config: RunConfig, info: SourceInfo | None, *, num_train: int, num_made: int = 2) -> RandomSource:
    """Return random images like those of the real data, or of the size that the network is published for.

    Args:
        config: Configuration: network and sizes.
        info: Facts about the real data; None = there are none.
        num_train: Number of training images.
        num_made: Number of different ones, at least as many as a worker's part of a batch.

    Raises:
        ValueError: The network does not exist.
    """
    data, arch = config.data, config.network.arch
    if info is None:
        channels, side = _SMALL.get(arch, _CIFAR) if is_ours(arch) else (3, eval_transform(arch).crop_size)
        side, channels = data.crop_size or side, data.channels or channels
        info = SourceInfo(
            name=NAME,
            num_classes=10 if is_ours(arch) else 1000,
            class_names=(),
            channels=channels,
            height=side,
            width=side,
            num_train=num_train,
            num_test=1,
            mean=(0.5,) * channels,
            std=(0.25,) * channels,
            fingerprint="",
            is_streamed=not is_ours(arch),
        )
    is_cropped = info.is_streamed and data.train_crop_size is not None
    size = (data.train_crop_size or 0,) * 2 if is_cropped else (info.height, info.width)
    return RandomSource(dataclasses.replace(info, num_train=num_train, num_test=1, is_grouped=False), size, num_made)
