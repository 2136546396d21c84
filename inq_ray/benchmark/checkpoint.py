"""Cost of a checkpoint: the time for which training stops, the time until it is complete, and its bytes."""

import contextlib
import shutil
import time
from pathlib import Path

import torch

from inq_ray.benchmark.figures import Figure
from inq_ray.benchmark.subject import Subject
from inq_ray.benchmark.turns import meet
from inq_ray.distributed.digest import check_replicas
from inq_ray.distributed.wire import rank, world_size
from inq_ray.training.checkpoint.checkpoints import store_of
from inq_ray.training.checkpoint.facts import History, Seconds
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.snapshot import Parts, replicated, take
from inq_ray.training.checkpoint.writer import WAIT_SECONDS, CheckpointWriter

_HISTORY = History(epochs_done=0, rows=(), bad_images={}, seconds=Seconds(run=0.0, epoch=0.0, data=0.0))


def measure_checkpoint(subject: Subject) -> list[Figure]:
    """Return the figures of a checkpoint in the first stage, after an unmeasured one; every rank calls it.

    The network has momentum of all weights. Rank 0 writes into the folder of the run's checkpoints, and deletes what it
    has written.
    """
    network = subject.network()
    optimizer = subject.optimizer(network)
    inq = subject.scheduler(optimizer)
    inq.step()
    for param in network.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()
    parts = Parts(model=network, optimizer=optimizer, inq=inq)
    writer = _Writer(subject) if rank() == 0 else None
    stalls: list[float] = []
    for number in range(subject.settings.effort.num_stages + 1):
        meet(subject.device)
        began = time.perf_counter()
        if world_size() > 1:
            check_replicas(replicated(parts, has_buffers=False), stage=None, what="weights, momentum, masks or codes")
        if writer is not None:
            writer.begin(parts, number)
        stalls.append(time.perf_counter() - began)
        if writer is not None:
            writer.end()
    if writer is None:
        return []
    return [Figure.of("checkpoint_stall", stalls[1:]), *writer.close()]


class _Writer:
    """Writer of rank 0, as a run has it."""

    def __init__(self, subject: Subject) -> None:
        scratch = Path(subject.settings.scratch)
        self._config = subject.config.replace(output={"storage_path": str(scratch), "name": scratch.name.lstrip(".")})
        self._scratch = scratch
        self._writer = CheckpointWriter(store_of(self._config), subject.tell)
        self._seconds: list[float] = []
        self._bytes: list[float] = []

    def begin(self, parts: Parts, number: int) -> None:
        """Copy the state, and write it in the background."""
        position = TrainingPosition(stage=1, epoch=0, step=number)
        sums = torch.zeros(world_size(), 3, dtype=torch.float64)
        self._writer.write(take(parts, _HISTORY, sums, position=position, config=self._config, fingerprint=None))

    def end(self) -> None:
        """Wait until it is complete."""
        if not self._writer.wait(WAIT_SECONDS) or self._writer.last is None:
            raise ValueError(f"a checkpoint was not written in {WAIT_SECONDS:g} s: use another --storage-path")
        self._seconds.append(self._writer.last.seconds)
        self._bytes.append(float(self._writer.last.entry.num_bytes))

    def close(self) -> list[Figure]:
        """Delete what was written; return time and bytes, without the first one."""
        self._writer.close()
        store = self._writer.store
        store.discard_after(TrainingPosition(stage=0, epoch=0, step=0))
        if store.location.is_local:
            shutil.rmtree(store.location.path, ignore_errors=True)
        shutil.rmtree(self._scratch / self._scratch.name.lstrip("."), ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: the driver, on the same storage, deletes it
            self._scratch.rmdir()
        return [
            Figure.of("checkpoint_write", self._seconds[1:]),
            Figure.of("checkpoint_bytes", self._bytes[1:]),
        ]
