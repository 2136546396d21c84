"""From a checkpoint in the middle of an epoch of ImageNet to the first step's batch: the additional time of a start.

The run is ResNet-50 in its first stage, half frozen, with momentum; its checkpoint is on the local disk and just
written. Reading checks the SHA-256 of every file. The epoch has 1,281,167 images and continues in its middle: as files,
for which any order is equally fast, and as Parquet with groups of 256. Reading and decoding the images of that batch is
part of every start.

With --memory ARCH, instead the memory of each of two ranks (gloo) that resume such a run of a torchvision network: the
largest resident set meanwhile, less what the process has before it builds the network, relative to the state in memory
afterwards: weights, buffers, momentum, masks and codes.

    python benchmarks/bench_resume.py --memory wide_resnet50_2
"""

import argparse
import gc
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from bench_checkpoint import make_run, snapshot_of
from numpy.typing import NDArray
from timing import report

from inq_ray.benchmark.turns import Case, take_turns
from inq_ray.core.optim.sgd import SGD
from inq_ray.data.loader import train_requests
from inq_ray.distributed.wire import rank
from inq_ray.models.selection import param_groups
from inq_ray.scheduler import INQScheduler
from inq_ray.storage.address import locate
from inq_ray.training.checkpoint.broadcast import broadcast_snapshot
from inq_ray.training.checkpoint.restore import restore
from inq_ray.training.checkpoint.snapshot import Parts
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


def resident(kind: str) -> int:
    """Return the bytes of this process's resident set: now ("VmRSS") or at most ("VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(kind))


def state_bytes(parts: Parts) -> int:
    """Return the bytes of weights, buffers, momentum, masks and codes, as the run holds them."""
    assert parts.optimizer is not None
    assert parts.inq is not None
    tensors = [*parts.model.parameters(), *parts.model.buffers()]
    for state in parts.inq.state.values():
        tensors += [state.frozen, state.codes]
    for param in parts.model.parameters():
        tensors += [*parts.optimizer.state[param].values()]
        live = parts.optimizer._live.get(param)  # noqa: SLF001  # the optimizer's own mask
        tensors += [] if live is None else [live]
    return sum(tensor.nbytes for tensor in tensors)


def resume_on_a_rank(arch: str, folder: str, own_rank: int) -> None:
    """Resume, and print the memory that it takes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=own_rank, world_size=2)
    torch.distributed.barrier()
    before = resident("VmRSS")
    network = torchvision.models.get_model(arch).to(memory_format=torch.channels_last)
    optimizer = SGD(param_groups(network, 5), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
    parts = Parts(model=network, optimizer=optimizer, inq=INQScheduler(optimizer, (0.5, 1.0)))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    found = CheckpointStore(locate(f"{folder}/run")).newest_good().snapshot if rank() == 0 else None
    snapshot = broadcast_snapshot(found)
    assert snapshot is not None
    del found
    restore(snapshot, parts)
    state, peak = state_bytes(parts), resident("VmHWM") - before
    torch.distributed.barrier()
    line = f"rank {rank()}: state {state / 1e6:,.0f} MB, at most {peak / 1e6:,.0f} MB, ratio {peak / state:.2f}\n"
    sys.stdout.write(line)  # with its end at once: ranks write at the same time
    torch.distributed.destroy_process_group()


def measure_memory(arch: str) -> None:
    """Write a checkpoint, and resume it on two ranks."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        writer = context.Process(target=write_run, args=(arch, f"{folder}/run"))
        writer.start()
        writer.join()
        ranks = [context.Process(target=resume_on_a_rank, args=(arch, folder, each)) for each in range(2)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        sys.exit(max(process.exitcode or 0 for process in ranks))


def write_run(arch: str, folder: str) -> None:
    """Write a checkpoint of a run in its first stage."""
    torch.set_num_threads(1)
    parts = make_run(arch)
    num_weights = sum(param.numel() for param in parts.model.parameters())
    num_bytes = CheckpointStore(locate(folder)).save(snapshot_of(parts, MIDDLE)).num_bytes
    print(f"{arch}, {num_weights / 1e6:.1f} million weights, checkpoint of {num_bytes / 1e6:,.0f} MB")


def main() -> None:
    """Measure on one thread."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--memory", metavar="ARCH")
    arch = parser.parse_known_args()[0].memory
    if arch is not None:
        measure_memory(arch)
        return
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
