"""Quality of the shuffle by groups: mean number of distinct classes in a global batch, against a full shuffle's.

The set is as large as ImageNet, 1000 classes of 1,280 images, in groups of 100: sorted by class, as folders are listed,
and in random order, as written by `inq-ray parquet`.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from timing import show

from inq_ray.data.order.groups import BUFFER, LANES, GroupOrder

NUM_CLASSES = 1000
PER_CLASS = 1280
GROUP = 100
BATCH_SIZE = 256
NUM_BATCHES = 256


def by_groups(labels: NDArray[np.int64], world_size: int, buffer: int) -> float:
    """Return the mean number of classes in the first global batches of an epoch, in the order of training."""
    num = len(labels)
    orders = [
        GroupOrder(
            torch.arange(num),
            np.append(np.arange(0, num, GROUP), num),
            batch_size=BATCH_SIZE,
            data_shard=shard,
            num_data_shards=world_size,
            seed=0,
            epoch=0,
            buffer=buffer,
        )
        for shard in range(world_size)
    ]
    return mean_classes(labels, [torch.cat([order[step] for order in orders]).numpy() for step in range(NUM_BATCHES)])


def by_true_shuffle(labels: NDArray[np.int64]) -> float:
    """Return the same for a permutation of all samples."""
    order = np.random.default_rng(0).permutation(len(labels))
    return mean_classes(labels, np.split(order[: NUM_BATCHES * BATCH_SIZE], NUM_BATCHES))


def mean_classes(labels: NDArray[np.int64], batches: list[NDArray[np.int64]]) -> float:
    """Return the mean number of distinct labels."""
    return float(np.mean([len(np.unique(labels[batch])) for batch in batches]))


def main() -> None:
    """Print the table."""
    by_class = np.repeat(np.arange(NUM_CLASSES), PER_CLASS)
    shuffled = np.random.default_rng(1).permutation(by_class)
    columns = [(1, BUFFER), (8, BUFFER), (1, 8 * BUFFER), (8, 8 * BUFFER)]
    rows = []
    for name, labels in (("sorted by class", by_class), ("random", shuffled)):
        figures = [*(by_groups(labels, *column) for column in columns), by_true_shuffle(labels)]
        rows.append((name, *(f"{figure:.1f}" for figure in figures)))
    heads = (f"{world_size} rank{'s' * (world_size > 1)}, buffer {buffer}" for world_size, buffer in columns)
    title = f"Mean number of classes in a global batch of {BATCH_SIZE}; groups of {GROUP}, {LANES} lanes"
    show(title, ("order in the files", *heads, "true shuffle"), rows)


if __name__ == "__main__":
    main()
