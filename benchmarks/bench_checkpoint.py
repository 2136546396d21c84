"""Cost of a checkpoint of ResNet-18: stall of the training thread, time until it is complete on disk, bytes.

The stall is the time for the digests, which prove that ranks have the same bits, and for the copy. Half of the weights
are frozen at 5 bits, all have momentum, and a second case has averages (EMA). Optimizer steps while a checkpoint is
written, compared with as many undisturbed ones, show the total loss: the stall and what the writing thread takes. The
naive size is that of all tensors as they are in memory.
"""

import statistics
import tempfile
import time

import torch
import torchvision
from timing import report

from inq_ray.benchmark.turns import Case, take_turns
from inq_ray.core.digest import digest_tensors
from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.digest import fast_digests
from inq_ray.models.selection import param_groups
from inq_ray.scheduler import INQScheduler
from inq_ray.storage.address import locate
from inq_ray.training.checkpoint.facts import History, Seconds
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.snapshot import Parts, Snapshot, replicated, take
from inq_ray.training.checkpoint.store import CheckpointStore
from inq_ray.training.checkpoint.writer import CheckpointWriter
from inq_ray.training.config import RunConfig
from inq_ray.training.loop.ema import Ema

ROUNDS = 5
STEPS = 20
SECONDS_BETWEEN = 60.0


def make_run(arch: str, *, has_ema: bool = False) -> Parts:
    """Return a torchvision network in its first stage, with gradients and momentum."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(arch).to(memory_format=torch.channels_last)
    optimizer = SGD(param_groups(network, 5), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
    inq = INQScheduler(optimizer, (0.5, 1.0))
    inq.step()
    for param in network.parameters():
        param.grad = torch.randn_like(param)
    optimizer.step()
    return Parts(model=network, optimizer=optimizer, inq=inq, ema=Ema(network, 0.999) if has_ema else None)


def snapshot_of(parts: Parts, step: int) -> Snapshot:
    """Return the snapshot as a run takes it."""
    sums = torch.zeros(1, 3, dtype=torch.float64)
    history = History(epochs_done=0, rows=(), bad_images={}, seconds=Seconds(run=0.0, epoch=0.0, data=0.0))
    place = TrainingPosition(stage=1, epoch=0, step=step)
    return take(parts, history, sums, position=place, config=RunConfig(), fingerprint=None)


class Bench:
    """A run with a writer into a folder; records the cost of each checkpoint."""

    def __init__(self, folder: str, *, has_ema: bool) -> None:
        self.parts = make_run("resnet18", has_ema=has_ema)
        self.writer = CheckpointWriter(CheckpointStore(locate(folder)), print)
        self.stalls: list[float] = []
        self.writes: list[float] = []
        self.num_bytes = 0
        self._step = 0

    def begin(self) -> None:
        """Take a checkpoint."""
        began = time.perf_counter()
        self._step += 1
        fast_digests(replicated(self.parts, has_buffers=False))
        self.writer.write(snapshot_of(self.parts, self._step))
        self.stalls.append(time.perf_counter() - began)

    def end(self) -> None:
        """Wait for it."""
        self.writer.wait(600)
        assert self.writer.last is not None
        self.writes.append(self.writer.last.seconds)
        self.num_bytes = self.writer.last.entry.num_bytes

    def steps(self) -> float:
        """Run some optimizer steps, and return the seconds per step."""
        assert self.parts.optimizer is not None
        began = time.perf_counter()
        for _ in range(STEPS):
            self.parts.optimizer.step()
        return (time.perf_counter() - began) / STEPS

    def lost(self) -> float:
        """Return the seconds that training loses to a checkpoint: its steps meanwhile minus undisturbed ones."""
        assert self.parts.optimizer is not None
        calm = self.steps()
        began = time.perf_counter()
        self.begin()
        num_steps = 0
        while self.writer.is_busy:
            self.parts.optimizer.step()
            num_steps += 1
        lost = time.perf_counter() - began - num_steps * calm
        self.end()
        return lost


def compare_digests(seconds: dict[str, list[float]], notes: dict[str, str]) -> None:
    """Add the time for the digests that ranks compare, and for SHA-256 of the same tensors."""
    compared = replicated(make_run("resnet18"), has_buffers=False)
    num_bytes = sum(tensor.nbytes for tensor in compared.values())
    cases = {
        "digests": Case(lambda _: fast_digests(compared)),
        "SHA-256": Case(lambda _: digest_tensors(compared)),
    }
    for name, times in take_turns(cases, ROUNDS).items():
        seconds[name] = times
        notes[name] = f" ({num_bytes / statistics.median(times) / 1e9:.1f} GB/s)"


def main() -> None:
    """Measure on one thread."""
    torch.set_num_threads(1)
    notes: dict[str, str] = {}
    seconds: dict[str, list[float]] = {}
    for name, has_ema in (("", False), (" with EMA", True)):
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(folder, has_ema=has_ema)
            bench.lost()
            bench.stalls, bench.writes = [], []
            lost = [bench.lost() for _ in range(ROUNDS)]
            naive = sum(tensor.nbytes for tensor in snapshot_of(bench.parts, 0).tensors.values())
            seconds |= {"stall" + name: bench.stalls, "lost" + name: lost, "until whole" + name: bench.writes}
            for key in ("stall", "lost"):
                share = statistics.median(seconds[key + name]) / SECONDS_BETWEEN
                notes[key + name] = f" ({100 * share:.2f} % of a minute)"
            notes["until whole" + name] = f" ({bench.num_bytes / 1e6:.1f} MB, naive {naive / 1e6:.1f} MB)"
            bench.writer.close()
    compare_digests(seconds, notes)
    report("A checkpoint of ResNet-18", seconds, reference="stall", notes=notes)


if __name__ == "__main__":
    main()
