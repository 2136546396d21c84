"""What ends a trial, and how it is told, without a cluster: Tune and the run itself are stand-ins."""

import contextlib
import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inq_ray.cluster.failure import RunDivergedError, RunFailedError, RunRefusedError, RunStoppedError
from inq_ray.cluster.placement import NoRoomError
from inq_ray.cluster.stopping import StopSignals
from inq_ray.cluster.tune import trial as sweep_trial
from inq_ray.cluster.tune.trial import REPORT, run_trial
from inq_ray.sweep.console import SweepConsole
from inq_ray.sweep.incidents import SweepIncidents
from inq_ray.sweep.plan import plan_sweep
from inq_ray.sweep.space.axes import Choices
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.sweep.space.space import LR, Space
from inq_ray.sweep.trials.report import Begun, Failed, Refused, Report, TrialRetryable
from inq_ray.training.config import RunConfig
from inq_ray.training.report.events import Note, Reporter, Row
from inq_ray.training.report.incident import Incident
from tests.training.runs import needs_digits, tiny_config

pytestmark = needs_digits

# The end of its stage 0: what a runner tells the sweep.
ROW = Row(stage=0, portion=0.0, epoch=1, top1=50.0, top5=60.0, loss=1.0, validation_seconds=1.0)


class _Sweep:
    """Tune, the run and the console's mailbox; keeps what they are told.

    Args:
        tell: called with each report of the trial; may raise.
        work: the run.
    """

    def __init__(self, folder: Path, tell: Callable[[Report], None], work: Callable[[Reporter, StopSignals], Any]):
        self.reports: list[Report] = []
        self.sent: list[bytes] = []
        self._tell = tell
        self._work = work
        plan = plan_sweep(tiny_config(folder, "sweep"), Space({LR: Choices((0.1,))}), SearchOptions())
        registry = plan.registry()
        spec = plan.spec(registry, registry.trials[0])
        plan.folder.path.mkdir()
        self.stop = plan.folder.stop_of("t001")
        self.arguments = {
            "spec": spec.to_json(), "name": "t001", "sweep": "sweep", "mailbox": self,
            "folder": str(folder), "stop": str(self.stop), "is_here": False,
        }  # fmt: skip
        self.put = SimpleNamespace(remote=lambda *call: self.sent.append(call[-1]))

    def report(self, result: dict[str, Any]) -> None:
        self._tell(result[REPORT])
        self.reports.append(result[REPORT])

    def quantize(self, _config: RunConfig, reporter: Reporter, *, signals: StopSignals, **_: Any) -> Any:
        return self._work(reporter, signals)

    def run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_RUN_GROUP", "")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "")
        monkeypatch.chdir(".")
        monkeypatch.setattr(sweep_trial, "tune", self)
        monkeypatch.setattr(sweep_trial, "quantize", self.quantize)
        run_trial(self.arguments)


def _told_elsewhere(reporter: Reporter, signals: StopSignals) -> None:
    """Tells as a run does, in a thread that lives on; then ends as it does where it is asked to."""
    survived: list[bool] = []

    def tell() -> None:
        for event in (ROW, ROW, Note("told later")):
            reporter.report(event)
        survived.append(True)

    thread = threading.Thread(target=tell)
    thread.start()
    thread.join()
    assert survived
    assert signals.asked is not None, "the run is asked to stop"
    raise RunStoppedError(signals.asked, "stopped")


@pytest.mark.parametrize("error", [ValueError("the storage fails"), RuntimeError("Tune is gone"), SystemExit(0)])
def test_a_trial_whose_reports_are_not_taken_ends_with_that(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the thread that delivers them nobody would see it: the trial would train on for nothing."""

    def refuse(report: Report) -> None:
        if not isinstance(report, Begun | TrialRetryable):
            raise error

    sweep = _Sweep(tmp_path, refuse, _told_elsewhere)
    with pytest.raises(type(error), match=str(error)):
        sweep.run(monkeypatch)
    assert len(sweep.sent) == 1, "a person sees what comes later"
    expected = [TrialRetryable("the storage fails")] if isinstance(error, ValueError) else []
    assert sweep.reports == [Begun(ends=()), *expected]


def test_a_trial_that_the_sweep_has_stopped_ends_quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(report: Report) -> None:
        if not isinstance(report, Begun):
            sweep.stop.touch()

    sweep = _Sweep(tmp_path, stop, _told_elsewhere)
    sweep.run(monkeypatch)
    assert not any(isinstance(report, TrialRetryable) for report in sweep.reports)


def _incident_at_work(reporter: Reporter, _: StopSignals) -> dict[str, Any]:
    """Loses a worker, goes on, and ends."""
    for event in (
        Incident(kind="workers_lost", text="rank 1 is gone: starting again (1 of --max-failures 3)"),
        Incident(kind="resumed", text="continuing from checkpoint-01-0001-00000004", seconds_lost=2.5),
        Incident(kind="step_skipped", text="stage 1, epoch 1, step 3: skipped (1 so far)"),
        Incident(kind="checkpoint_failed", text="checkpoint-01-0001-00000008 is not written: the disk is full"),
        Note("going on from habit"),
    ):
        reporter.report(event)
    return {"top1": 50.0, "digest": "d"}


def test_what_goes_wrong_in_a_trial_reaches_the_console_and_the_log_of_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = _Sweep(tmp_path, lambda _: None, _incident_at_work)
    sweep.run(monkeypatch)
    console, log = SweepConsole(), SweepIncidents(tmp_path / "events.jsonl")
    for sent in sweep.sent:
        event = pickle.loads(sent)  # noqa: S301, of our own
        console.report(event)
        log.report(event)
    assert capsys.readouterr().out.splitlines() == [
        "t001  rank 1 is gone: starting again (1 of --max-failures 3)",
        "t001  stage 1, epoch 1, step 3: skipped (1 so far)",
        "t001  checkpoint-01-0001-00000008 is not written: the disk is full",
        "t001  going on from habit",
    ]
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(line["trial"], line["kind"], line["seconds_lost"]) for line in lines] == [
        ("t001", "workers_lost", None),
        ("t001", "resumed", 2.5),
        ("t001", "step_skipped", None),
        ("t001", "checkpoint_failed", None),
    ]


@pytest.mark.parametrize(
    ("error", "is_tried_again"),
    [
        (RunFailedError("rank 0: OSError: DivergedError is not in this folder"), True),
        (RunDivergedError("rank 0: stage 1, epoch 2: the loss is not finite"), False),
    ],
)
def test_a_trial_that_diverges_is_not_tried_again(
    error: RunFailedError, is_tried_again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    sweep = _Sweep(tmp_path, lambda _: None, fail)
    with pytest.raises(RunFailedError) if is_tried_again else contextlib.nullcontext():
        sweep.run(monkeypatch)
    kind = TrialRetryable if is_tried_again else Failed
    assert sweep.reports == [Begun(ends=()), kind(str(error))]


def test_a_trial_whose_weights_are_refused_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RunRefusedError("near chance")

    sweep = _Sweep(tmp_path, lambda _: None, refuse)
    sweep.run(monkeypatch)
    assert sweep.reports == [Begun(ends=()), Refused("near chance")]


def test_a_trial_that_is_to_end_does_not_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(report: Report) -> None:
        if not isinstance(report, Begun):
            sweep.stop.touch()

    def crowded(reporter: Reporter, _: StopSignals) -> None:
        reporter.report(ROW)
        raise NoRoomError("there is none")

    sweep = _Sweep(tmp_path, stop, crowded)
    sweep.run(monkeypatch)
    assert not any(isinstance(report, TrialRetryable) for report in sweep.reports)
