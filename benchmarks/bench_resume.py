"""From a checkpoint in the middle of an epoch of ImageNet to the first step's batch: what is added to a start.

The run is ResNet-50's in its first stage, half frozen, with momentum; its checkpoint lies on this machine's disk and is
new. Reading checks the sha256 of every file. The epoch has 1,281,167 images and goes on in its middle: once as
files, of which any order costs the same, and once as Parquet with groups of 256. To read and decode the images of that
batch is what every start has to do.
"""

import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from timing import Case, report, take_turns

from inq_ray.core.optim.sgd import SGD
from inq_ray.data.loader import train_requests
from inq_ray.models.selection import param_groups
from inq_ray.scheduler import INQScheduler
from inq_ray.storage.address import locate
from inq_ray.training.checkpoint.facts import History, Seconds
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.restore import restore
from inq_ray.training.checkpoint.snapshot import Parts, take
from inq_ray.training.checkpoint.store import CheckpointStore
from inq_ray.training.config import RunConfig

ROUNDS = 5
NUM_IMAGES = 1_281_167
BATCH_SIZE = 256
MIDDLE = NUM_IMAGES // BATCH_SIZE // 2


class Listed(NamedTuple):
    """As much of a set of images as its order needs."""

    groups: NDArray[np.int64] | None

    def __len__(self) -> int:
        return NUM_IMAGES


def make_run() -> Parts:
    """Returns ResNet-50 in its first stage, with momentum."""
    torch.manual_seed(0)
    network = torchvision.models.resnet50().to(memory_format=torch.channels_last)
    optimizer = SGD(param_groups(network, 5), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
    inq = INQScheduler(optimizer, (0.5, 1.0))
    inq.step()
    for param in network.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()
    return Parts(model=network, optimizer=optimizer, inq=inq)


def first_request(groups: NDArray[np.int64] | None) -> Callable[[Any], object]:
    """Returns what finds the images of the first batch in the middle of an epoch."""

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
    """Runs on one thread."""
    torch.set_num_threads(1)
    parts = make_run()
    history = History(epochs_done=3, rows=(), bad_images={}, seconds=Seconds(run=0.0, epoch=0.0, data=0.0))
    sums = torch.zeros(8, 3, dtype=torch.float64)
    place = TrainingPosition(stage=1, epoch=0, step=MIDDLE)
    snapshot = take(parts, history, sums, position=place, config=RunConfig(), fingerprint=None)
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
