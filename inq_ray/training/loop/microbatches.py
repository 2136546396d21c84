"""The parts in which a rank computes its share of a batch, one after the other (--accumulate)."""

from torch import Tensor

from inq_ray.data.loader import Batch
from inq_ray.training.config import TrainingConfig


def parts_of(batch: Batch, labels: Tensor, training: TrainingConfig) -> list[tuple[int, Tensor, Tensor]]:
    """Place of each part over an epoch, of which its random numbers are a function, and its images and labels.

    Args:
        batch: what could be read of a rank's share.
        labels: int64 [N], those of the batch, on the network's device.
        training: --accumulate says how many parts, where there are as many images.

    Raises:
        ValueError: no image could be read; or fewer than parts with --sync-batchnorm, whose ranks wait for each other
            in every part.
    """
    if not len(labels):
        raise ValueError(f"no image of a whole batch could be read; one is {batch.bad[0].name}")
    accumulate = training.accumulate
    if training.sync_batchnorm and len(labels) < accumulate:
        raise ValueError(
            f"of a batch only {len(labels)} images could be read (not {batch.bad[0].name}), and --sync-batchnorm with "
            f"--accumulate {accumulate} needs {accumulate}: mend the images, or lower --accumulate"
        )
    num_parts = min(accumulate, len(labels))
    pairs = zip(batch.images.tensor_split(num_parts), labels.tensor_split(num_parts), strict=True)
    return [(batch.step * accumulate + index, images, of_part) for index, (images, of_part) in enumerate(pairs)]
