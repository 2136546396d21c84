"""A benchmark on Ray Train workers, for one number of workers after the other."""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch

from inq_ray.benchmark.advice import sizes_of
from inq_ray.benchmark.figures import World
from inq_ray.benchmark.measure import measure
from inq_ray.benchmark.subject import Settings
from inq_ray.cluster.connection import connected, in_words
from inq_ray.cluster.failure import RunFailedError
from inq_ray.cluster.fit import run_workers
from inq_ray.cluster.mailbox import MailboxReporter
from inq_ray.cluster.node.whereabouts import whereabouts
from inq_ray.cluster.placement import wait_for_placement
from inq_ray.cluster.stopping import StopSignals
from inq_ray.files.shown import shown
from inq_ray.training.config import RunConfig
from inq_ray.training.report.events import Event, Measured, Note, Reporter, SilentReporter, Waiting, WorkersPlaced


def benchmark(
    config: RunConfig,
    reporter: Reporter,
    *,
    is_quick: bool,
    fingerprint: str | None,
    verbose: bool,
) -> list[World]:
    """Measure a configuration on a Ray cluster; nothing is kept.

    Args:
        config: Configuration that passed :func:`inq_ray.training.task.check.check`. Of a range of workers its smallest
            number is measured, the doubled ones, and the largest that fits.
        reporter: Receives rank 0's events, in this process.
        is_quick: Whether to use the fewest repetitions.
        fingerprint: Fingerprint of the data; None = random images.
        verbose: Whether to show Ray's own log.

    Raises:
        ValueError: The workers do not fit into the cluster, or --storage-path is not writable.
        RunFailedError: A worker failed.
    """
    reporter.report(Waiting(in_words()))
    worlds: list[World] = []
    with connected(config.cluster, verbose=verbose), _scratch(Path(config.output.storage_path)) as scratch:
        settings = Settings(is_quick=is_quick, fingerprint=fingerprint, scratch=str(scratch))
        most = wait_for_placement(config.cluster, lambda text: reporter.report(Note(text)))
        for num_workers in sizes_of(config.cluster.workers.least, most):
            reporter.report(Waiting(f"starting {num_workers} worker(s)"))
            wait_for_placement(
                config.replace(cluster={"num_workers": num_workers}).cluster, lambda text: reporter.report(Note(text))
            )
            worlds.append(_measured(config, settings, reporter, num_workers, scratch))
    return worlds


@contextlib.contextmanager
def _scratch(storage: Path) -> Iterator[Path]:
    """Create a folder in that of the runs during the block; next to it if it does not exist."""
    parent = next(folder for folder in (storage.absolute(), *storage.absolute().parents) if folder.is_dir())
    try:
        folder = tempfile.TemporaryDirectory(prefix=".benchmark-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise ValueError(f"--storage-path {shown(storage)}: cannot write there ({error.strerror or error})") from error
    with folder as path:
        yield Path(path)


def _measured(config: RunConfig, settings: Settings, reporter: Reporter, num_workers: int, scratch: Path) -> World:
    receiver = _Receiver(reporter)
    run_workers(
        _work,
        {"config": config.replace(cluster={"num_workers": num_workers}).to_json(), "settings": asdict(settings)},
        config.cluster,
        receiver,
        StopSignals(),
        num_workers=num_workers,
        storage=scratch / f"ray-{num_workers}",
    )
    if receiver.world is None:
        raise RunFailedError("the workers ended without a result")
    return receiver.world


class _Receiver:
    """Keeps the figures, and passes on all other events."""

    def __init__(self, reporter: Reporter) -> None:
        self.world: World | None = None
        self._reporter = reporter

    def report(self, event: Event) -> None:
        if isinstance(event, Measured):
            self.world = World.from_dict(json.loads(event.text))
        else:
            self._reporter.report(event)


def _work(arguments: dict[str, Any]) -> None:
    """Measure on this worker: the training function of a :class:`ray.train.torch.TorchTrainer`."""
    config = RunConfig.from_json(arguments["config"])
    torch.set_num_threads(config.cluster.cpus_per_worker)
    if ray.train.get_context().get_world_rank() > 0:
        _report(config, arguments, SilentReporter())
        return
    with contextlib.closing(MailboxReporter(arguments["mailbox"])) as mailbox:
        _report(config, arguments, mailbox)


def _report(config: RunConfig, arguments: dict[str, Any], reporter: Reporter) -> None:
    device = ray.train.torch.get_device()
    workers = tuple(whereabouts(device))
    reporter.report(WorkersPlaced(workers))
    figures = measure(
        config,
        Settings(**arguments["settings"]),
        device,
        tell=_as(Note, reporter),
        wait_for=_as(Waiting, reporter),
    )
    world = World(num_workers=len(workers), workers=workers, figures=tuple(figures))
    reporter.report(Measured(json.dumps(world.to_dict())))


def _as(kind: type[Note] | type[Waiting], reporter: Reporter) -> Callable[[str], None]:
    return lambda text: reporter.report(kind(text))
