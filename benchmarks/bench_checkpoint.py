"""What a checkpoint of ResNet-18 costs: stall of the training thread, time until it is whole on disk, bytes.

Half of the weights are frozen at 5 bits, all have momentum, and with averages (EMA) too. Steps of the optimizer with
and without a checkpoint that is written meanwhile show what the thread that packs and writes takes from the training
on one core each. The naive size is that of all tensors as they are in memory, as pickling them would write.
"""

import statistics
import tempfile
import time
from typing import Any

import torch
import torchvision
from timing import Case, report, take_turns

from inq_ray.core.sgd import SGD
from inq_ray.data.address import locate
from inq_ray.models.selection import param_groups
from inq_ray.scheduler import INQScheduler
from inq_ray.training.checkpoint.place import Place
from inq_ray.training.checkpoint.snapshot import History, Parts, Snapshot, take
from inq_ray.training.checkpoint.store import CheckpointStore
from inq_ray.training.checkpoint.writer import CheckpointWriter
from inq_ray.training.config import RunConfig
from inq_ray.training.ema import Ema

ROUNDS = 5
STEPS = 50
SECONDS_BETWEEN = 60.0


def make_run(*, has_ema: bool) -> Parts:
    """Returns ResNet-18 in its first stage, with gradients and momentum."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = SGD(param_groups(network, 5), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
    inq = INQScheduler(optimizer, (0.5, 1.0))
    inq.step()
    for param in network.parameters():
        param.grad = torch.randn_like(param)
    optimizer.step()
    return Parts(model=network, optimizer=optimizer, inq=inq, ema=Ema(network, 0.999) if has_ema else None)


def snapshot_of(parts: Parts, step: int) -> Snapshot:
    """Returns the snapshot as a run takes it."""
    sums = torch.zeros(1, 3, dtype=torch.float64)
    history = History(
        epochs_done=0, rows=(), bad_images={}, sums=sums, epoch_seconds=0.0, data_seconds=0.0, seconds=0.0
    )
    place = Place(stage=1, epoch=0, step=step)
    return take(parts, history, place=place, config=RunConfig(), fingerprint=None)


class Bench:
    """A run with a writer into a folder; remembers what each checkpoint took."""

    def __init__(self, folder: str, *, has_ema: bool) -> None:
        self.parts = make_run(has_ema=has_ema)
        self.writer = CheckpointWriter(CheckpointStore(locate(folder)), print)
        self.stalls: list[float] = []
        self.writes: list[float] = []
        self.num_bytes = 0
        self._step = 0

    def checkpoint(self, _: Any = None) -> None:
        """Takes one and waits for it, which is not counted as stall."""
        self.begin()
        self.end()

    def begin(self) -> None:
        """Takes one."""
        began = time.perf_counter()
        self._step += 1
        self.writer.write(snapshot_of(self.parts, self._step))
        self.stalls.append(time.perf_counter() - began)

    def end(self) -> None:
        """Waits for it."""
        self.writer.wait(600)
        assert self.writer.last is not None
        self.writes.append(self.writer.last.seconds)
        self.num_bytes = self.writer.last.entry.num_bytes

    def steps(self, has_checkpoint: bool) -> None:
        """Takes a number of optimizer steps; the first one may be followed by a checkpoint."""
        assert self.parts.optimizer is not None
        for step in range(STEPS):
            self.parts.optimizer.step()
            if step == 0 and has_checkpoint:
                self.begin()

    def with_checkpoint(self, _: Any = None) -> None:
        """As many steps, a checkpoint written meanwhile; waits for it where the steps end first."""
        self.steps(True)
        self.end()

    def calm(self, _: Any = None) -> None:
        """As many steps."""
        self.steps(False)


def main() -> None:
    """Runs on one thread."""
    torch.set_num_threads(1)
    notes, seconds = {}, {}
    for name, has_ema in (("", False), (" with EMA", True)):
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(folder, has_ema=has_ema)
            bench.checkpoint()
            cases = {"calm": Case(bench.calm), "with a checkpoint": Case(bench.with_checkpoint)}
            seconds |= {key + name: times for key, times in take_turns(cases, ROUNDS).items()}
            naive = sum(tensor.nbytes for tensor in snapshot_of(bench.parts, 0).tensors.values())
            lost = statistics.median(
                each - calm
                for each, calm in zip(seconds["with a checkpoint" + name], seconds["calm" + name], strict=True)
            )
            bench.writer.close()
            stall = statistics.median(bench.stalls[-ROUNDS:])
            seconds |= {"stall" + name: bench.stalls[-ROUNDS:], "until whole" + name: bench.writes[-ROUNDS:]}
            notes["stall" + name] = f" ({100 * stall / SECONDS_BETWEEN:.3f} % of a minute)"
            notes["until whole" + name] = f" ({bench.num_bytes / 1e6:.1f} MB, naive {naive / 1e6:.1f} MB)"
            notes["with a checkpoint" + name] = f" (all in all {100 * lost / SECONDS_BETWEEN:.2f} % of a minute)"
    report(f"A checkpoint of ResNet-18; {STEPS} steps", seconds, reference="calm", notes=notes)


if __name__ == "__main__":
    main()
