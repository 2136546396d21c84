"""The parts in which a rank computes its share of a batch, one after the other (--accumulate)."""

from torch import Tensor

from inq_ray.data.loader import Batch


def parts_of(batch: Batch, labels: Tensor, accumulate: int) -> list[tuple[int, Tensor, Tensor]]:
    """Place of each part over an epoch, of which its random numbers are a function, and its images and labels.

    Args:
        batch: at least one of its images could be read.
        labels: int64 [N], those of the batch, on the network's device.
        accumulate: parts, where there are as many images.
    """
    num_parts = min(accumulate, len(labels))
    pairs = zip(batch.images.tensor_split(num_parts), labels.tensor_split(num_parts), strict=True)
    return [(batch.step * accumulate + index, images, of_part) for index, (images, of_part) in enumerate(pairs)]
