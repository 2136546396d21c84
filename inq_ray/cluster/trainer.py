"""A configuration -> a Ray Train run."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inq_ray.cluster.connection import connected
from inq_ray.cluster.failure import RunFailedError, WorkersLostError
from inq_ray.cluster.fit import fit
from inq_ray.cluster.placement import SETTLE_SECONDS, NoRoomError, place
from inq_ray.tracking.trackers import Together, open_trackers
from inq_ray.training.accuracy import Accuracy
from inq_ray.training.checkpoint.resume import Decision
from inq_ray.training.config import RunConfig
from inq_ray.training.reporter import Event, Note, Reporter
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.start import look, prepare


def quantize(
    config: RunConfig,
    reporter: Reporter,
    *,
    decision: Decision | None = None,
    fingerprint: str | None = None,
    verbose: bool = False,
) -> dict[str, Any]:
    """Runs a configuration on a Ray cluster, from its last checkpoint where there is one.

    Args:
        config: checked by :func:`inq_ray.training.build.check`, with a name.
        reporter: takes the events of rank 0, in this process.
        decision: of :func:`inq_ray.training.start.look`, to start or to go on; None = it is asked here.
        fingerprint: of the data; workers that see other data end the run.
        verbose: whether Ray's own log is shown.

    Returns:
        The summary of the run.

    Raises:
        ValueError: the name is taken, or the workers do not fit into the cluster; nothing was started or written.
        RunFailedError: a worker failed, or workers were lost too often, or there is no room for new ones.
    """
    summary: dict[str, Any] | None = None
    with connected(config.cluster, verbose=verbose):
        num_workers = place(config.cluster, _notes(reporter))
        folder = prepare(config, decision or look(config, fingerprint=fingerprint))
        trackers = open_trackers(config.output.track, config, folder.path)
        try:
            _fit_again(config, Together(reporter, trackers), folder, fingerprint, num_workers)
            summary = _read_summary(folder)
        finally:
            trackers.close(summary)
    return summary


def _fit_again(
    config: RunConfig, reporter: Reporter, folder: RunFolder, fingerprint: str | None, num_workers: int
) -> None:
    """Trains, and goes on where workers were lost, as often as is allowed, on as many as have room then."""
    num_failures, allowed = 0, config.cluster.max_failures
    while True:
        # A storage of its own each time: Ray Train would take up its own state of the time before.
        shutil.rmtree(folder.ray, ignore_errors=True)
        try:
            fit(
                config,
                reporter,
                num_workers=num_workers,
                storage=folder.ray,
                fingerprint=fingerprint,
                is_evaluation=False,
            )
        except WorkersLostError as error:
            num_failures += 1
            if num_failures > allowed:
                raise RunFailedError(f"{error}; the same command goes on from the last checkpoint") from error
            reporter.report(Note(f"{error}: starting again ({num_failures} of --max-failures {allowed})"))
            try:
                num_workers = place(config.cluster, _notes(reporter), settle_seconds=SETTLE_SECONDS)
            except NoRoomError as no_room:
                raise RunFailedError(f"{no_room}; the same command goes on from the last checkpoint") from no_room
        else:
            return


def _notes(reporter: Reporter) -> Callable[[str], None]:
    return lambda text: reporter.report(Note(text))


def _read_summary(folder: RunFolder) -> dict[str, Any]:
    """What the workers have written last."""
    if not folder.summary.is_file():
        raise RunFailedError(
            f"this machine sees no {folder.summary} of the workers: --storage-path must be a folder of all nodes"
        )
    summary: dict[str, Any] = json.loads(folder.summary.read_text(encoding="utf-8"))
    return summary


def evaluate(config: RunConfig, *, fingerprint: str | None = None, verbose: bool = False) -> Accuracy:
    """Accuracy of a network as it is, measured on a Ray cluster; nothing is kept.

    Arguments as in :func:`quantize`.

    Raises:
        ValueError: the workers do not fit into the cluster.
        RunFailedError: a worker failed.
    """
    keeper = _Keeper()
    storage = Path(config.output.storage_path).expanduser().absolute()
    parent = storage if storage.is_dir() else None
    with (
        connected(config.cluster, verbose=verbose),
        tempfile.TemporaryDirectory(prefix=".evaluate-", dir=parent, ignore_cleanup_errors=True) as folder,
    ):
        fit(
            config,
            keeper,
            num_workers=place(config.cluster, _notes(keeper)),
            storage=Path(folder),
            fingerprint=fingerprint,
            is_evaluation=True,
        )
    if keeper.accuracy is None:
        raise RunFailedError("the workers ended without a result")
    return keeper.accuracy


class _Keeper:
    def __init__(self) -> None:
        self.accuracy: Accuracy | None = None

    def report(self, event: Event) -> None:
        if isinstance(event, Accuracy):
            self.accuracy = event
