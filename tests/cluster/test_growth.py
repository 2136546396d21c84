"""Long runs and sweeps of many trials need no more memory and no more open files at their end than before."""

import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from inq_ray.cluster.trainer import quantize
from inq_ray.cluster.tune.sweep import run_sweep
from inq_ray.sweep.console import SweepConsole
from inq_ray.sweep.plan import plan_sweep
from inq_ray.sweep.space.axes import Choices
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.sweep.space.space import LR, Space
from inq_ray.sweep.trials.registry import TrialRegistry
from inq_ray.sweep.trials.report import Done
from inq_ray.training.report.events import Event, Row
from tests.conftest import RayCluster
from tests.faults import train_workers
from tests.training.runs import needs_digits, tiny_config

pytestmark = [pytest.mark.ray, pytest.mark.long, needs_digits]

# More than the noise of allocators (up to 30 MB in 90 trials that ended where they began) and of Ray's own threads.
MOST_MEGABYTES = 48.0
MOST_FILES = 4


class Size(NamedTuple):
    """What a process holds.

    Attributes:
        megabytes: In memory.
        files: Open ones, with sockets and pipes.
    """

    megabytes: float
    files: int


def size_of(process: int) -> Size | None:
    """Return what a process holds; None if it has ended."""
    folder = Path(f"/proc/{process}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        return Size(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(list((folder / "fd").iterdir())))
    except OSError:
        return None


class Sizes:
    """Sizes of this process and of others, taken again and again.

    Args:
        others: Finds their ids.
    """

    def __init__(self, others: Callable[[], list[int]]) -> None:
        self._others = others
        self._taken: dict[int, list[Size]] = {}

    def take(self) -> None:
        for process in (os.getpid(), *self._others()):
            if (size := size_of(process)) is not None:
                self._taken.setdefault(process, []).append(size)

    def check(self, num: int, num_processes: int) -> None:
        """Compare the middle of what was taken with the end, of each process that was there for at least so long."""
        long = {process: sizes for process, sizes in self._taken.items() if len(sizes) >= num}
        assert len(long) == num_processes, {process: len(sizes) for process, sizes in self._taken.items()}
        for process, sizes in long.items():
            fifth = len(sizes) // 5
            middle, end = sizes[2 * fifth : 3 * fifth], sizes[-fifth:]
            for name, most in (("megabytes", MOST_MEGABYTES), ("files", MOST_FILES)):
                before, after = (statistics.median(getattr(size, name) for size in part) for part in (middle, end))
                assert after - before <= most, f"{name} of {process}: {before} in the middle, {after} at the end"


def test_200_epochs_hold_no_more_at_their_end(ray_cluster: RayCluster, tmp_path: Path) -> None:
    sizes = Sizes(train_workers)

    class Reporter:
        def report(self, event: Event) -> None:
            if isinstance(event, Row):
                sizes.take()

    config = tiny_config(tmp_path, training={"batch_size": 200, "epochs": 100}).replace(
        output={"checkpoint_every": "7"}
    )
    summary = quantize(config, Reporter())
    assert summary["events"]["counts"] == {}
    sizes.check(150, num_processes=2)  # driver and worker, which may end before its last rows are delivered


def test_30_trials_hold_no_more_at_their_end(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, take = Sizes(list), TrialRegistry.take

    def taken(registry: TrialRegistry, name: str, report: Any) -> bool:
        if isinstance(report, Done):
            sizes.take()
        return take(registry, name, report)

    monkeypatch.setattr(TrialRegistry, "take", taken)
    training = {"batch_size": 200, "limit_batches": 2, "float_epochs": 1, "epochs": 1}
    base = tiny_config(tmp_path, "sweep", training=training, quantization={"iterative_steps": (1.0,)})
    space = Space({LR: Choices(tuple(0.001 * number for number in range(1, 31)))})
    result = run_sweep(plan_sweep(base, space, SearchOptions(max_concurrent=1)), SweepConsole())
    assert [trial.status for trial in result.trials] == ["done"] * 30
    assert not (tmp_path / "sweep" / "events.jsonl").exists()
    sizes.check(30, num_processes=1)  # each trial had a process of its own
