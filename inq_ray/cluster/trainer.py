"""From a configuration to a Ray Train run."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from inq_ray.cluster.connection import connected, in_words
from inq_ray.cluster.failure import (
    ReplicasDifferError,
    RunFailedError,
    RunRefusedError,
    RunStoppedError,
    WorkersLostError,
)
from inq_ray.cluster.fit import fit, fit_here
from inq_ray.cluster.metrics import RunMetrics
from inq_ray.cluster.node.shared_folders import folders_of
from inq_ray.cluster.placement import GRACE_SECONDS, NoRoomError, wait_for_placement
from inq_ray.cluster.stopping import StopSignals
from inq_ray.tracking.together import Together
from inq_ray.tracking.trackers import open_trackers
from inq_ray.training.attempt import remove_marks
from inq_ray.training.checkpoint.resume import Decision, Start
from inq_ray.training.config import RunConfig
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.report.events import Event, Note, Reporter, SilentReporter, Waiting
from inq_ray.training.report.incident import Incident, IncidentLog, Kind
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.start import held, look, prepare


def quantize(
    config: RunConfig,
    reporter: Reporter,
    *,
    decision: Decision | None = None,
    fingerprint: str | None = None,
    verbose: bool = False,
    signals: StopSignals | None = None,
    is_here: bool = False,
) -> dict[str, Any]:
    """Run a configuration on a Ray cluster, from its last checkpoint if there is one.

    Args:
        config: Configuration that passed :func:`inq_ray.training.task.check.check`, with a name.
        reporter: Receives rank 0's events, in this process.
        decision: Decision of :func:`inq_ray.training.start.look`, to start or to continue, made while the run was
            :func:`inq_ray.training.start.held`; None = both are done here.
        fingerprint: Fingerprint of the data; workers with other data end the run.
        verbose: Whether to show Ray's own log.
        signals: Object through which another thread may stop the run; None = only signals do.
        is_here: Whether the only worker is this process, which has a worker's resources.

    Returns:
        The summary of the run.

    Raises:
        ValueError: The name is in use, or the workers do not fit into the cluster; nothing was started or written.
        RunRefusedError: The accuracy of the weights cannot be right; the run's folder is deleted again.
        RunFailedError: A worker failed, or workers were lost too often, or there is no room for new ones.
        RunStoppedError: A signal (SIGTERM, SIGINT; in the main thread) stopped the run, which left a checkpoint.
    """
    signals = signals or StopSignals()
    summary: dict[str, Any] | None = None
    with contextlib.ExitStack() as stack:
        if decision is None:
            stack.enter_context(held(config, _notes(reporter)))
        reporter.report(Waiting(in_words()))
        log = IncidentLog(RunFolder.planned(config).events)
        stack.enter_context(
            connected(
                config.cluster,
                verbose=verbose,
                last_words=lambda line: log.add(Incident(kind="failed", text=line)),
                # SIGTERM to a whole process group, as Slurm's, ends the cluster with the job.
                status=lambda: 1 if signals.asked is None else 128 + signals.asked,
            )
        )
        stack.enter_context(signals.listened_to())
        num_workers = 1 if is_here else wait_for_placement(config.cluster, _notes(reporter))
        decision = decision or look(config, fingerprint=fingerprint)
        folder = prepare(config, decision)
        if isinstance(decision, Start):
            stack.enter_context(_deleted_if_refused(folder))
        trackers = open_trackers(config.output.track, config, folder.path)
        stack.callback(lambda: trackers.close(summary))
        together = Together(reporter, trackers, RunMetrics(folder.path.name))
        run = _Attempts(config, together, signals, folder, fingerprint, is_here=is_here)
        summary = run.fit_to_the_end(num_workers)
    return summary


@contextlib.contextmanager
def _deleted_if_refused(folder: RunFolder) -> Iterator[None]:
    """Delete the folder of a refused run, which has no checkpoint yet, so that its name is free again."""
    try:
        yield
    except RunRefusedError:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise


def tidy(config: RunConfig) -> None:
    """Remove what a killed driver of a finished run left behind; called while the run's name is held."""
    RunFolder.planned(config).clean()
    remove_marks(folders_of(config).values())


class _Attempts:
    """Fits one after the other if workers are lost, up to the allowed number, each on as many workers as fit then."""

    def __init__(
        self,
        config: RunConfig,
        reporter: Reporter,
        signals: StopSignals,
        folder: RunFolder,
        fingerprint: str | None,
        *,
        is_here: bool = False,
    ) -> None:
        self._is_here = is_here
        self._config = config
        self._reporter = reporter
        self._signals = signals
        self._folder = folder
        self._fingerprint = fingerprint
        self._log = IncidentLog(folder.events)
        self._num_failures = 0
        self._num_fits = 0

    def fit_to_the_end(self, num_workers: int) -> dict[str, Any]:
        """Train to the end, first on this number of workers; return the summary."""
        while (summary := self._fit(num_workers)) is None:
            try:
                num_workers = wait_for_placement(
                    self._config.cluster, _notes(self._reporter), grace_seconds=GRACE_SECONDS
                )
            except NoRoomError as no_room:
                raise self._failed(no_room) from no_room
        return summary

    def _fit(self, num_workers: int) -> dict[str, Any] | None:
        """Train; return the summary if the run reached its end."""
        # A new storage each time: Ray Train would load its own state of the previous time.
        self._folder.clean()
        self._reporter.report(Waiting(f"starting {num_workers} worker(s)"))
        try:
            self._fit_once(num_workers)
        except RunRefusedError:
            raise
        except RunFailedError as error:
            kind = self._kind_that_may_pass(error)
            if kind is None:
                self._note("failed", str(error))
                raise
            if self._signals.asked is None:
                self._count(kind, error)
            else:
                self._note(kind, str(error))
        except ValueError as error:
            if not self._num_fits:
                raise
            raise self._failed(error) from error
        else:
            if (summary := self._folder.read_summary()) is not None:
                return summary
            if self._signals.asked is None:  # a worker's machine is about to be shut down: continue elsewhere
                self._reporter.report(Note("starting again on other workers"))
        finally:
            self._folder.clean()
            self._num_fits += 1
        if self._signals.asked is not None:
            raise RunStoppedError(
                self._signals.asked, "stopped; run the same command to continue from the last checkpoint"
            )
        return None

    def _fit_once(self, num_workers: int) -> None:
        if self._is_here:
            fit_here(self._config, self._reporter, self._signals, fingerprint=self._fingerprint)
            return
        fit(
            self._config,
            self._reporter,
            self._signals,
            num_workers=num_workers,
            storage=self._folder.ray,
            fingerprint=self._fingerprint,
            is_evaluation=False,
        )

    def _kind_that_may_pass(self, error: RunFailedError) -> Kind | None:
        """Return the kind of a failure after which the run continues from a checkpoint; None = it ends the run."""
        if isinstance(error, WorkersLostError):
            return "workers_lost"
        if isinstance(error, ReplicasDifferError) and self._config.cluster.on_mismatch == "restart":
            return "replicas_differ"
        return None

    def _count(self, kind: Kind, error: RunFailedError) -> None:
        """Record a failure, if more are allowed.

        Raises:
            RunFailedError: There were too many.
        """
        self._num_failures += 1
        allowed = self._config.cluster.max_failures
        if self._num_failures > allowed:
            raise self._failed(error) from error
        self._note(kind, f"{error}: starting again ({self._num_failures} of --max-failures {allowed})")

    def _failed(self, error: Exception) -> RunFailedError:
        self._note("failed", str(error))
        return RunFailedError(f"{error}; run the same command to continue from the last checkpoint")

    def _note(self, kind: Kind, text: str) -> None:
        """Report an incident; only while no worker is running, because they write to the same file."""
        incident = Incident(kind=kind, text=text)
        self._log.add(incident)
        if kind != "failed":  # this is printed at the end of the process
            self._reporter.report(incident)


def _notes(reporter: Reporter) -> Callable[[str], None]:
    return lambda text: reporter.report(Note(text))


def evaluate(
    config: RunConfig,
    *,
    fingerprint: str | None = None,
    verbose: bool = False,
    reporter: Reporter | None = None,
) -> Accuracy:
    """Return the accuracy of a network, measured on a Ray cluster; nothing is stored.

    Args:
        config: As in :func:`quantize`.
        fingerprint: Likewise.
        verbose: Likewise.
        reporter: Receives what the evaluation waits for; None = no reports.

    Raises:
        ValueError: The workers do not fit into the cluster.
        RunFailedError: A worker failed.
    """
    reporter = reporter or SilentReporter()
    receiver = _AccuracyReceiver(reporter)
    reporter.report(Waiting(in_words()))
    storage = Path(config.output.storage_path).expanduser().absolute()
    parent = storage if storage.is_dir() else None
    with (
        connected(config.cluster, verbose=verbose),
        tempfile.TemporaryDirectory(prefix=".evaluate-", dir=parent, ignore_cleanup_errors=True) as folder,
    ):
        num_workers = wait_for_placement(config.cluster, _notes(reporter))
        reporter.report(Waiting(f"measuring on {num_workers} worker(s)"))
        fit(
            config,
            receiver,
            StopSignals(),
            num_workers=num_workers,
            storage=Path(folder),
            fingerprint=fingerprint,
            is_evaluation=True,
        )
    if receiver.accuracy is None:
        raise RunFailedError("the workers ended without a result")
    return receiver.accuracy


class _AccuracyReceiver:
    """Stores the accuracy, and passes on all other events."""

    def __init__(self, reporter: Reporter) -> None:
        self.accuracy: Accuracy | None = None
        self._reporter = reporter

    def report(self, event: Event) -> None:
        if isinstance(event, Accuracy):
            self.accuracy = event
        else:
            self._reporter.report(event)
