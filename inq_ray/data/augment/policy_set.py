"""Automatic augmentation and erasing on top of a set in memory, image by image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from inq_ray.data.augment.policy import apply_policy
from inq_ray.data.image_set import Images, Samples, Source, SourceInfo, Split
from inq_ray.data.preset import Policy


@dataclass(frozen=True)
class PolicySource:
    """A source in memory whose training images a policy changes after crop and flip.

    Attributes:
        source: Whose images.
        policy: Its auto_augment and random_erasing; crop and flip are the source's own.
    """

    source: Source
    policy: Policy

    @property
    def info(self) -> SourceInfo:
        """The source's."""
        return self.source.info

    @property
    def notes(self) -> tuple[str, ...]:
        """The source's."""
        return self.source.notes

    def split(self, split: Split) -> Images:
        """Return the images of "train" or "test"."""
        return PolicySet(self.source.split(split), self.policy, self.info.mean)


@dataclass(frozen=True)
class PolicySet:
    """A split of such a source.

    Attributes:
        images: The set below.
        policy: What happens to its training images.
        mean: Of each channel: the colour of what is erased.
    """

    images: Images
    policy: Policy
    mean: tuple[float, ...]

    @property
    def groups(self) -> None:
        """None: memory is read in any order."""
        return

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, samples: Tensor, augment: tuple[int, int] | None) -> Samples:
        """See :meth:`inq_ray.data.image_set.Images.fetch`."""
        fetched = self.images.fetch(samples, augment)
        if augment is None or not len(samples):
            return fetched
        changed = [
            apply_policy(image, self.policy, self.mean, sample, *augment)
            for image, sample in zip(fetched.images, samples.tolist(), strict=True)
        ]
        return Samples(torch.stack(changed), fetched.labels)
