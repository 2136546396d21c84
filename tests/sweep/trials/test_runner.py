"""Whole sweeps of real runs, without Ray: what is reused, what a kill, damage and a full disk change (no bit)."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from inq_ray.sweep.reuse.stages import StageEnd, StageStore, seed_from_stage
from inq_ray.sweep.space.axes import Choices
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.sweep.space.space import BITS, SCHEDULE, Space
from inq_ray.sweep.trials import runner as runner_module
from inq_ray.sweep.trials.ranking import savings
from inq_ray.sweep.trials.report import Begun, Done, Ended, Report, Stored
from inq_ray.sweep.trials.runner import TrialRunner, TrialSpec
from inq_ray.sweep.trials.trial import Trial
from inq_ray.training.config import RunConfig
from inq_ray.training.report.events import Row
from inq_ray.training.run import run
from inq_ray.training.run_folder import RunFolder
from tests.sweep.here import Here, tiny_plan
from tests.training.runs import needs_digits

pytestmark = [needs_digits, pytest.mark.system]

SPACE = Space({SCHEDULE: Choices(((0.5, 0.75, 1.0), (0.5, 0.9, 1.0), (1.0,)))})


class KilledError(BaseException):
    """The process ends here."""


def digests(here: Here) -> dict[str, str | None]:
    return {trial.name: trial.digest for trial in here.registry.trials}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Digests of the same trials without reuse."""
    here = Here(tiny_plan(tmp_path_factory.mktemp("alone"), SPACE, SearchOptions(reuse=False)))
    here.run()
    assert all(trial.count("reused") == 0 for trial in here.registry.trials)
    return digests(here)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Here:
    here = Here(tiny_plan(tmp_path_factory.mktemp("swept"), SPACE))
    here.run()
    return here


def test_each_trial_has_the_bits_of_the_same_trial_alone(swept: Here, alone: dict[str, str | None]) -> None:
    assert digests(swept) == alone
    assert len(set(alone.values())) == 3
    assert [(trial.count("trained"), trial.count("reused")) for trial in swept.registry.trials] == [
        (4, 0),
        (2, 2),
        (1, 1),
    ]
    saved = savings(swept.registry.trials)
    assert (saved.num_trained, saved.num_reused, saved.num_distinct) == (7, 3, 7)
    assert saved.saved_seconds > 0


def test_what_nobody_needs_is_gone(swept: Here) -> None:
    assert list(swept.plan.folder.stages.iterdir()) == []
    for trial in swept.registry.trials:
        assert list((RunFolder.planned(trial.config).path / "checkpoints").iterdir()) == []


def test_a_trials_metrics_and_summary_are_those_of_a_run_alone(swept: Here) -> None:
    trial = swept.registry.of("t002")
    folder = RunFolder.planned(trial.config)
    with folder.metrics_csv.open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        ("0", "1"), ("1", "0"), ("1", "1"), ("2", "0"), ("2", "1"), ("3", "0"), ("3", "1")
    ]  # fmt: skip
    summary = json.loads(folder.summary.read_text())
    assert [stage["portion"] for stage in summary["stages"]] == [0.5, 0.9, 1.0]
    assert [end.top1 for end in trial.ends[1:]] == [stage["top1"] for stage in summary["stages"]]
    assert summary["measured_on"] == "held-out training images"


def test_the_files_of_a_sweep(swept: Here) -> None:
    state = swept.plan.folder.read()
    assert state is not None
    assert [trial["status"] for trial in state["trials"]] == ["done"] * 3
    with swept.plan.folder.table.open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [(row["trial"], row["iterative_steps"], row["stages_reused"]) for row in rows] == [
        ("t001", "0.5,0.75,1", "0"), ("t002", "0.5,0.9,1", "2"), ("t003", "1", "1")
    ]  # fmt: skip
    assert [row["digest"] for row in rows] == list(digests(swept).values())


@pytest.mark.parametrize(
    ("name", "what"), [("t001", Ended), ("t001", Stored), ("t001", Done), ("t002", Begun), ("t002", Ended)]
)
def test_a_sweep_that_was_killed_goes_on(
    name: str, what: type[Report], alone: dict[str, str | None], tmp_path: Path
) -> None:
    """Killed when a trial reports: what it has done is there, and the sweep has not heard of it."""
    seen: list[Report] = []

    def kill(trial: Trial, report: Report) -> None:
        if trial.name == name and isinstance(report, what):
            seen.append(report)
            if not (what is Ended and len(seen) < 2):
                raise KilledError

    plan = tiny_plan(tmp_path, SPACE)
    with pytest.raises(KilledError):
        Here(plan, kill).run()
    again = Here(plan)
    assert [trial for trial in again.registry.trials if trial.is_over] == again.registry.trials[: int(name[-1]) - 1]
    again.run()
    assert digests(again) == alone
    assert savings(again.registry.trials).num_trained + savings(again.registry.trials).num_reused == 10


def test_a_trial_that_was_killed_once_it_had_a_stage_of_others_does_not_count_it_as_its_own(
    alone: dict[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seed_and_die(end: StageEnd, config: RunConfig) -> None:
        seed_from_stage(end, config)
        raise KilledError

    plan = tiny_plan(tmp_path, SPACE)
    with monkeypatch.context() as patch:
        patch.setattr(runner_module, "seed_from_stage", seed_and_die)
        with pytest.raises(KilledError):
            Here(plan).run()
    again = Here(plan)
    again.run()
    assert digests(again) == alone
    saved = savings(again.registry.trials)
    assert (saved.num_trained, saved.num_reused) == (7, 3)


def test_a_damaged_end_is_left_out_and_trained_again(alone: dict[str, str | None], tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, SPACE)

    def damage(trial: Trial, report: Report) -> None:
        if trial.name == "t001" and isinstance(report, Done):
            for file in plan.folder.stages.rglob("tensors.safetensors"):
                data = bytearray(file.read_bytes())
                data[len(data) // 2] ^= 1
                file.write_bytes(data)

    here = Here(plan, damage)
    here.run()
    assert digests(here) == alone
    begun = {name: report for name, report in here.reports if isinstance(report, Begun)}
    assert begun["t002"].damaged
    assert begun["t002"].ends == ()


def test_a_full_disk_stores_nothing_and_stops_nobody(
    alone: dict[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: StageStore, key: str, end: Any) -> None:
        raise ValueError(f"{key}: No space left on device")

    monkeypatch.setattr(StageStore, "put", full)
    here = Here(tiny_plan(tmp_path, SPACE))
    here.run()
    assert digests(here) == alone
    reasons = [report.reason for _, report in here.reports if isinstance(report, Stored)]
    assert reasons
    assert all(reason is not None and "No space left" in reason for reason in reasons)
    assert savings(here.registry.trials).num_reused == 0


def test_a_storage_that_does_not_say_what_it_holds_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: StageStore, key: str) -> bool:
        raise ValueError(f"{key}: Input/output error")

    here = Here(tiny_plan(tmp_path, SPACE))
    trial = here.registry.next(1)
    assert trial is not None
    spec, told = here.plan.spec(here.registry, trial), list[Report]()
    monkeypatch.setattr(StageStore, "__contains__", fails)
    TrialRunner(spec, told.append).report(
        Row(stage=0, portion=0.0, epoch=1, top1=50.0, top5=60.0, loss=1.0, validation_seconds=1.0)
    )
    stored, ended = told
    assert stored == Stored(spec.keys[0], f"{spec.keys[0]}: Input/output error")
    assert isinstance(ended, Ended)
    assert ended.end.stage == 0


def test_bits_share_what_comes_before_the_first_stage_and_median_or_asha_stop(tmp_path: Path) -> None:
    space = Space({SCHEDULE: Choices(((0.5, 0.75, 1.0), (0.5, 1.0))), BITS: Choices((5, 2))})
    here = Here(tiny_plan(tmp_path, space, SearchOptions(stopping="asha")))
    here.run()
    assert all(trial.is_over for trial in here.registry.trials)
    floats = {trial.ends[0].top1 for trial in here.registry.trials if trial.ends}
    assert len(floats) == 1
    assert {trial.bits for trial in here.registry.trials if trial.status == "done"} == {5, 2}


def test_a_trial_that_was_finished_before_is_not_run_again(swept: Here) -> None:
    """As when the sweep was killed between a run's end and its report."""
    trial = swept.registry.of("t003")
    told: list[Report] = []
    runner = TrialRunner(swept.plan.spec(swept.registry, trial), told.append)
    summary = runner.begin()
    assert summary is not None
    runner.finish(summary)
    assert told == [Begun(ends=()), Done(top1=summary["top1"], digest=summary["digest"])]


def test_what_a_finished_run_has_left_is_stored_where_its_process_was_killed(
    alone: dict[str, str | None], tmp_path: Path
) -> None:
    """Whoever tells the sweep is killed at the first stage's end, and the run goes on to its own."""
    plan = tiny_plan(tmp_path, SPACE)
    deaf: list[str] = []

    def kill(trial: Trial, report: Report) -> None:
        if trial.name == "t001" and isinstance(report, Ended | Stored | Done) and not deaf:
            deaf.append(trial.name)
            raise KilledError

    here = Here(plan, kill)
    first = here.registry.trials[0]
    with pytest.raises(KilledError):
        here.run()
    here.registry.interrupt()
    folder = RunFolder.planned(first.config)

    class Silent:
        def report(self, event: object) -> None:
            pass

    run(first.config, device=torch.device("cpu"), reporter=Silent(), folder=folder)
    again = Here(plan)
    again.run()
    assert digests(again) == alone
    saved = savings(again.registry.trials)
    assert (saved.num_trained, saved.num_reused) == (7, 3)


def test_an_order_survives_the_way_to_another_process(swept: Here) -> None:
    spec = swept.plan.spec(swept.registry, swept.registry.of("t002"))
    assert TrialSpec.from_json(spec.to_json()) == spec


def test_the_recorded_configuration_is_the_trials(swept: Here, tmp_path: Path) -> None:
    config = swept.registry.of("t002").config.replace(output={"storage_path": str(tmp_path), "name": "again"})
    folder = RunFolder.create(config)

    class Silent:
        def report(self, event: object) -> None:
            pass

    summary = run(config, device=torch.device("cpu"), reporter=Silent(), folder=folder)
    assert summary["digest"] == digests(swept)["t002"]
