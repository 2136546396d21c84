"""From a checkpoint in the middle of an epoch of ImageNet to the first step's batch: the additional time of a start.

The run is ResNet-50 in its first stage, half frozen, with momentum; its checkpoint is on the local disk and just
written. Reading checks the SHA-256 of every file. The epoch has 1,281,167 images and continues in its middle: as files,
for which any order is equally fast, and as Parquet with groups of 256. Reading and decoding the images of that batch is
part of every start.
"""

import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from bench_checkpoint import make_run, snapshot_of
from numpy.typing import NDArray
from timing import report

from inq_ray.benchmark.turns import Case, take_turns
from inq_ray.data.loader import train_requests
from inq_ray.storage.address import locate
from inq_ray.training.checkpoint.restore import restore
from inq_ray.training.checkpoint.store import CheckpointStore

ROUNDS = 5
NUM_IMAGES = 1_281_167
BATCH_SIZE = 256
MIDDLE = NUM_IMAGES // BATCH_SIZE // 2


class Listed(NamedTuple):
    """The properties of a set of images that its order needs."""

    groups: NDArray[np.int64] | None

    def __len__(self) -> int:
        return NUM_IMAGES


def first_request(groups: NDArray[np.int64] | None) -> Callable[[Any], object]:
    """Return a function that finds the images of the first batch in the middle of an epoch."""

    def run(_: object) -> object:
        requests = train_requests(
            Listed(groups),  # type: ignore[arg-type]
            torch.arange(NUM_IMAGES),
            batch_size=BATCH_SIZE,
            rank=0,
            world_size=8,
            seed=0,
            epoch=3,
            steps=range(MIDDLE, NUM_IMAGES // BATCH_SIZE),
        )
        return next(iter(requests))

    return run


def main() -> None:
    """Measure on one thread."""
    torch.set_num_threads(1)
    parts = make_run("resnet50")
    snapshot = snapshot_of(parts, MIDDLE)
    groups = np.append(np.arange(0, NUM_IMAGES, 256), NUM_IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(locate(folder))
        num_bytes = store.save(snapshot).num_bytes
        cases = {
            "find and read the checkpoint": Case(lambda _: store.newest_good()),
            "restore the network": Case(lambda _: restore(snapshot, parts)),
            "first batch, files": Case(first_request(None)),
            "first batch, Parquet": Case(first_request(groups)),
        }
        seconds = take_turns(cases, ROUNDS)
    seconds["all, files"] = [sum(times) for times in zip(*list(seconds.values())[:3], strict=True)]
    notes = {"find and read the checkpoint": f" ({num_bytes / 1e6:.0f} MB)"}
    report(f"Resuming in an epoch of {NUM_IMAGES:,} images", seconds, reference="all, files", notes=notes)


if __name__ == "__main__":
    main()
