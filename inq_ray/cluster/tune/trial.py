"""A trial in a process of Ray Tune: it builds its own Ray Train run, as a single run is built."""

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

# Of what a trial reports to Tune: the name under which the sweep finds it.
REPORT = "report"


def run_trial(arguments: dict[str, Any], environment: Mapping[str, str] | None = None) -> None:
    """The trainable.

    A trial that is to stop ends in order: a process that Tune ended would leave its workers to Ray, which gives back
    what they hold late, and on a machine with several clusters not at all.

    Args:
        arguments: "spec" (JSON of :class:`~inq_ray.sweep.trials.runner.TrialSpec`), "name" (of the trial), "sweep" (its
            name), "mailbox" (actor handle), "folder" (where the job was started), "stop" (a file that says to stop).
        environment: variables of the driver that are to be this process's too. They are no arguments, because Tune
            writes those into files, and these may be keys.
    """
    with contextlib.suppress(OSError):  # another node may not have it
        os.chdir(arguments["folder"])
    os.environ.update(environment or {})
    # Trackers put the runs of a sweep together by these.
    os.environ.setdefault("WANDB_RUN_GROUP", arguments["sweep"])
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", arguments["sweep"])
    spec, signals, stop = TrialSpec.from_json(arguments["spec"]), StopSignals(), Path(arguments["stop"])

    def tell(report: Report) -> None:
        tune.report({REPORT: report})  # returns when the sweep has taken it
        if stop.exists():
            signals.asked = signal.SIGTERM

    runner = TrialRunner(spec, tell)
    try:
        summary = runner.begin()
        if summary is None:
            reporter = _TrialReporter(runner, signals, arguments["name"], arguments["mailbox"])
            with reporter.raising():
                summary = _quantize_once_there_is_room(spec, reporter, signals)
        runner.finish(summary)
    except (RunStoppedError, RunFailedError, ValueError, OSError) as error:
        if stop.exists():
            return
        line = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, RunRefusedError):
            tell(Refused(line))
            return
        if isinstance(error, RunDivergedError):  # it would again
            tell(Failed(line))
            return
        tell(TrialRetryable(line))
        raise


def _quantize_once_there_is_room(spec: TrialSpec, reporter: Reporter, signals: StopSignals) -> dict[str, Any]:
    """Runs a trial. It has room in the cluster, which the sweep has looked at; where others hold that, it waits on."""
    while True:
        try:
            return quantize(spec.config, reporter, fingerprint=spec.fingerprint, signals=signals)
        except NoRoomError as error:
            if signals.asked is not None:  # the trial is to end, and needs none
                raise
            reporter.report(Note(f"{error}; the trial waits on"))


class _TrialReporter:
    """The reporter of a trial's run: to the runner, and what a person may see to the driver.

    It is called in a thread that goes on whatever it raises. So a runner that raises has the run asked to stop, and
    the block of :meth:`raising` ends with the error.
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
        """Raises at its end what the runner has raised, whatever became of the run then."""
        try:
            yield
        finally:
            if self._error is not None:
                raise self._error
