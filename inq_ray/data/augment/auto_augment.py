"""Auto-augmentation and random erasing of one image, by torchvision, as in its reference training.

Settings are those of torchvision's references/classification/presets.py: RandAugment of magnitude 9, AugMix of severity
3, AutoAugment's policy for ImageNet, the network's interpolation; bilinear instead of bicubic, which rotations and
shears of tensors do not support.
"""

import functools

from torch import Tensor
from torchvision.transforms import v2

from inq_ray.data.preprocessing import Augmentation, AutoAugment, Interpolation
from inq_ray.data.seeded import seeded


def augment_image(
    image: Tensor,
    augmentation: Augmentation,
    mean: tuple[float, ...],
    sample: int,
    seed: int,
    epoch: int,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """Return the image after auto-augmentation and random erasing; crop and flip are done elsewhere.

    The randomness is a function of (seed, epoch, sample); torch's generator is not changed.

    Args:
        image: uint8 [C, H, W], not normalized, C = 1 or 3.
        augmentation: Transforms to apply.
        mean: Mean per channel, for images scaled to [0, 1]. Erased rectangles get this color, rounded to a whole byte;
            torchvision's reference fills with 0 after normalization: the same within half a level of 255.
        sample: Index of the image in its set.
        seed: The run's seed.
        epoch: Epoch, counted over the whole run.
        interpolation: Interpolation of rotations and shears.

    Returns:
        uint8 [C, H, W]; the image itself if there is nothing to do.
    """
    assert len(mean) == len(image), (mean, image.shape)
    transform = augmentation_transform(augmentation.auto_augment, augmentation.random_erasing, mean, interpolation)
    if transform is None:
        return image
    with seeded("policy", seed, epoch, sample):
        augmented: Tensor = transform(image)
    return augmented


@functools.lru_cache(maxsize=32)
def augmentation_transform(
    auto_augment: AutoAugment, random_erasing: float, mean: tuple[float, ...], interpolation: Interpolation
) -> v2.Transform | None:
    """Return torchvision's transform for uint8 images; None if there is nothing to do. Arguments as above."""
    mode = "bilinear" if interpolation == "bicubic" else interpolation
    transforms: list[v2.Transform] = []
    match auto_augment:
        case "randaugment":
            transforms.append(v2.RandAugment(magnitude=9, interpolation=mode))
        case "trivialaugment":
            transforms.append(v2.TrivialAugmentWide(interpolation=mode))
        case "autoaugment":
            transforms.append(v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, interpolation=mode))
        case "augmix":
            transforms.append(v2.AugMix(severity=3, interpolation=mode))
    if random_erasing > 0:
        color = [min(max(round(255 * value), 0), 255) for value in mean]
        transforms.append(v2.RandomErasing(p=random_erasing, value=color))
    return v2.Compose(transforms) if transforms else None
