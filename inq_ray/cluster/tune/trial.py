"""A trial in a process of Ray Tune: it builds its own Ray Train run, like a single run."""

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ray import tune

from inq_ray.cluster.failure import RunDivergedError, RunFailedError, RunRefusedError, RunStoppedError
from inq_ray.cluster.mailbox import Sender
from inq_ray.cluster.placement import NoRoomError
from inq_ray.cluster.stopping import StopSignals
from inq_ray.cluster.trainer import quantize
from inq_ray.sweep.incidents import FromTrial
from inq_ray.sweep.trials.report import Failed, Refused, Report, TrialRetryable
from inq_ray.sweep.trials.runner import TrialRunner, TrialSpec
from inq_ray.training.report.events import Event, Note, Progress, Reporter, Waiting
from inq_ray.training.report.incident import Incident

# Key of a trial's report in its result for Tune.
REPORT = "report"


def run_trial(arguments: dict[str, Any], environment: Mapping[str, str] | None = None) -> None:
    """Run a trial: the trainable of Ray Tune.

    A trial that is to stop ends itself: if Tune ended its process, Ray would have to stop its workers, which frees
    their resources late, and on a machine with several clusters not at all.

    Args:
        arguments: "spec" (JSON of :class:`~inq_ray.sweep.trials.runner.TrialSpec`), "name" (of the trial), "sweep" (its
            name), "mailbox" (actor handle), "folder" (where the job was started), "stop" (file that requests a stop),
            "is_here" (whether this process is the trial's worker).
        environment: Environment variables of the driver to set here. They are not in the arguments, because Tune writes
            those into files, and these may be keys.
    """
    with contextlib.suppress(OSError):  # another node may not have it
        os.chdir(arguments["folder"])
    os.environ.update(environment or {})
    # Trackers group the runs of a sweep by these.
    os.environ.setdefault("WANDB_RUN_GROUP", arguments["sweep"])
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", arguments["sweep"])
    spec, signals, stop = TrialSpec.from_json(arguments["spec"]), StopSignals(), Path(arguments["stop"])

    def tell(report: Report) -> None:
        tune.report({REPORT: report})  # returns when the sweep has handled it
        if stop.exists():
            signals.asked = signal.SIGTERM

    runner = TrialRunner(spec, tell)
    try:
        summary = runner.begin()
        if summary is None:
            reporter = _TrialReporter(runner, signals, arguments["name"], arguments["mailbox"])
            with reporter.raising():
                summary = _quantize_once_there_is_room(spec, reporter, signals, is_here=arguments["is_here"])
        runner.finish(summary)
    except (RunStoppedError, RunFailedError, ValueError, OSError) as error:
        if stop.exists():
            return
        line = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, RunRefusedError):
            tell(Refused(line))
            return
        if isinstance(error, RunDivergedError):  # a retry would diverge too
            tell(Failed(line))
            return
        tell(TrialRetryable(line))
        raise


def _quantize_once_there_is_room(
    spec: TrialSpec, reporter: Reporter, signals: StopSignals, *, is_here: bool = False
) -> dict[str, Any]:
    """Run a trial. It fits into the cluster, as the sweep has checked; while others use the room, it waits."""
    while True:
        try:
            return quantize(spec.config, reporter, fingerprint=spec.fingerprint, signals=signals, is_here=is_here)
        except NoRoomError as error:
            if signals.asked is not None:  # the trial is to end, and needs no room
                raise
            reporter.report(Note(f"{error}; the trial keeps waiting"))


class _TrialReporter:
    """The reporter of a trial's run: passes events to the runner, and those for people to the driver.

    It is called in a thread that ignores its exceptions. So an exception of the runner asks the run to stop, and is
    raised again at the end of the block of :meth:`raising`.
    """

    def __init__(self, runner: TrialRunner, signals: StopSignals, name: str, mailbox: Any) -> None:
        self._runner = runner
        self._error: BaseException | None = None
        self._signals = signals
        self._name = name
        self._sender = Sender(mailbox)

    def report(self, event: Event) -> None:
        if isinstance(event, Progress | Note | Waiting | Incident):
            self._sender.send(FromTrial(self._name, event))
        if self._error is not None:
            return
        try:
            self._runner.report(event)
        except (Exception, SystemExit) as error:  # noqa: BLE001, Tune ends a trial by SystemExit
            self._error = error
            self._signals.asked = self._signals.asked or signal.SIGTERM

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Raise the runner's exception at the end, after any outcome of the run."""
        try:
            yield
        finally:
            if self._error is not None:
                raise self._error
