"""Sweeps by Ray Tune over Ray Train: what is shared is trained once, and nothing that happens changes a bit."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

from inq_ray.cluster.placement import NoRoomError, Resources
from inq_ray.cluster.stopping import StopSignals
from inq_ray.cluster.tune import drive as drive_module
from inq_ray.cluster.tune import slots as slots_module
from inq_ray.cluster.tune import trial as sweep_trial
from inq_ray.cluster.tune.drive import Drive, _of_trackers
from inq_ray.cluster.tune.slots import count_slots, num_trials_at_once
from inq_ray.cluster.tune.space import axis_of
from inq_ray.cluster.tune.sweep import SweepResult, leave, run_sweep
from inq_ray.sweep import plan as plan_module
from inq_ray.sweep.command_line import parse
from inq_ray.sweep.console import SweepConsole
from inq_ray.sweep.plan import plan_sweep
from inq_ray.sweep.space.axes import Choices, Range
from inq_ray.sweep.space.options import space_of
from inq_ray.sweep.space.proposer import ListProposer
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.sweep.space.space import LR, SCHEDULE, Point, Space
from inq_ray.sweep.trials.ranking import savings
from inq_ray.sweep.trials.registry import TrialRegistry
from inq_ray.sweep.trials.report import Done, End, Ended, Refused
from inq_ray.sweep.trials.trial import Trial
from inq_ray.training.config import ClusterConfig, RunConfig
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.flags.command import program
from inq_ray.training.report.events import Note
from tests.conftest import RayCluster
from tests.disks import small_disk_at
from tests.faults import processes_of_ray
from tests.sweep.here import Here
from tests.training.runs import Recorder, run_here, tiny_config

POINTS: list[Point] = [
    {SCHEDULE: (0.5, 0.75, 1.0), LR: 0.02}, {SCHEDULE: (0.5, 0.9, 1.0), LR: 0.02},
    {SCHEDULE: (0.4, 1.0), LR: 0.02}, {SCHEDULE: (0.5, 1.0), LR: 1e30},
]  # fmt: skip
TRAINING = {"batch_size": 200, "limit_batches": 2, "float_epochs": 1, "epochs": 1}


def stop_the_short_one(stays: Callable[[TrialRegistry, Trial], bool]) -> Callable[[TrialRegistry, Trial], bool]:
    def decide(registry: TrialRegistry, trial: Trial) -> bool:
        is_short = trial.schedule[0] == 0.4 and trial.ends[-1].stage == 1
        return stays(registry, trial) and not is_short

    return decide


def kill_its_process(registry: TrialRegistry, killed: list[int], stop: threading.Event) -> None:
    """The process of the first trial that has passed a stage gets SIGKILL, once."""
    while not stop.wait(0.05):
        if any(end.stage >= 1 for trial in registry.trials for end in trial.ends):
            for process in processes_of_ray("ImplicitFunc")[:1]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                return


@pytest.mark.ray
@pytest.mark.long
def test_a_sweep_with_failures_stops_and_a_killed_process(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at a time of four that all need the same first stage: two end, one is stopped, one diverges."""
    monkeypatch.setattr(plan_module, "make_proposer", lambda *_, **__: ListProposer(POINTS))
    monkeypatch.setattr(TrialRegistry, "_stays", stop_the_short_one(TrialRegistry._stays))
    options = SearchOptions(stopping="asha", grace_portion=1.0, max_concurrent=2)
    plan = plan_sweep(tiny_config(tmp_path, "sweep", training=TRAINING), Space({LR: Choices((0.02,))}), options)
    registries, killed, stop = list[TrialRegistry](), list[int](), threading.Event()
    made = type(plan).registry

    def remember(*args: Any) -> TrialRegistry:
        registries.append(made(*args))
        threading.Thread(target=kill_its_process, args=(registries[0], killed, stop), daemon=True).start()
        return registries[0]

    monkeypatch.setattr(type(plan), "registry", remember)
    try:
        result = run_sweep(plan, SweepConsole())
    finally:
        stop.set()
    assert len(killed) == 1
    done, failed, stopped = (
        [trial for trial in result.trials if trial.status == status] for status in ("done", "failed", "stopped")
    )
    assert [trial.schedule for trial in done] == [(0.5, 0.75, 1.0), (0.5, 0.9, 1.0)]
    assert [trial.schedule for trial in stopped] == [(0.4, 1.0)]
    assert ["DivergedError" in (trial.reason or "") for trial in failed] == [True]
    saved = savings(result.trials)
    assert saved.num_trained == saved.num_distinct
    for trial in done:  # in this process, without Ray and without the others
        alone = run_here(trial.config.replace(output={"storage_path": str(tmp_path / "alone"), "name": trial.name}))
        assert trial.digest == alone.summary["digest"]
    assert result.best in done
    assert result.test is not None
    assert result.test.num_samples == 500
    assert not any((tmp_path / "sweep").glob(".*.stop"))


@pytest.mark.ray
@pytest.mark.long
def test_the_job_goes_on_after_an_interrupt_and_a_kill(
    ray_cluster: RayCluster, job_env: dict[str, str], repo: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable, "jobs/sweep_schedules.py", "--schedules", "0.5,0.75,1", "0.5,1", "--float-epochs", "2",
        "--epochs", "12", "--workers-per-trial", "1", "--storage-path", str(tmp_path), "--name", "sweep",
    ]  # fmt: skip
    env = {**job_env, "RAY_ADDRESS": ray_cluster.address}
    state = tmp_path / "sweep" / "sweep.json"

    def start_until(number: int, stage: int) -> tuple[int, str]:
        """Sends a signal once a trial has passed a stage; returns status and output."""
        with subprocess.Popen(
            command, cwd=repo, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as job:
            deadline = time.monotonic() + 600
            while time.monotonic() < deadline and job.poll() is None:
                trials = json.loads(state.read_text())["trials"] if state.is_file() else []
                if any(end["stage"] >= stage for trial in trials for end in trial["ends"]):
                    job.send_signal(number)
                    break
                time.sleep(0.02)
            output, _ = job.communicate(timeout=600)
        return job.returncode, output

    status, output = start_until(signal.SIGINT, 0)
    assert status == 130, output
    assert "top-1 in % on held-out training images" in output
    assert "interrupted; run the same command to continue" in output
    status, output = start_until(signal.SIGKILL, 1)
    assert status == -signal.SIGKILL, output
    done = subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test set  top-1" in done.stdout
    trials = json.loads(state.read_text())["trials"]
    assert [trial["status"] for trial in trials] == ["done", "done"]
    assert [end["how"] for end in trials[1]["ends"]] == ["reused", "reused", "trained"]
    config = json.loads((tmp_path / "sweep" / "best.json").read_text())
    assert config["data"]["holdout"] == 129
    again = subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "starts" not in again.stdout


@pytest.mark.ray
@pytest.mark.long
def test_two_sweeps_at_once_on_one_storage_by_optuna_with_asha(
    ray_cluster: RayCluster, job_env: dict[str, str], repo: Path, tmp_path: Path
) -> None:
    """Each proposes, stops and ends with the bits of a sweep that was alone, in one process and without Ray."""
    flags = (
        "--schedules 0.5,0.75,1 0.5,1 --lrs 1e-3..1 --search optuna --trials 3 --search-seed 4 --stopping asha "
        "--max-concurrent 1 --workers-per-trial 1 --holdout 129 --batch-size 200 --limit-batches 2 --float-epochs 1 "
        "--epochs 1"
    )
    env = {**job_env, "RAY_ADDRESS": ray_cluster.address}
    jobs = []
    for name in ("one", "other"):
        words = [*flags.split(), "--storage-path", str(tmp_path / "runs"), "--name", name]
        command = [sys.executable, "jobs/sweep_schedules.py", *words]
        jobs.append(
            subprocess.Popen(command, cwd=repo, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    outputs = [job.communicate(timeout=1000)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    command_line = parse([*flags.split(), "--storage-path", str(tmp_path / "alone"), "--name", "alone"])
    alone = Here(plan_sweep(command_line.run, space_of(command_line.space), command_line.search))
    alone.run()
    expected = [(trial.point[LR], trial.status, trial.reason, trial.digest) for trial in alone.registry.trials]
    assert {status for _, status, _, _ in expected} == {"done", "stopped"}
    for name in ("one", "other"):
        state = json.loads((tmp_path / "runs" / name / "sweep.json").read_text())
        found = [(each["point"][LR], each["status"], each["reason"], each["digest"]) for each in state["trials"]]
        assert found == expected


@pytest.mark.ray
@pytest.mark.long
def test_a_full_disk_ends_trials_and_not_the_sweep_which_goes_on_once_there_is_room(
    ray_cluster: RayCluster, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    space = Space({SCHEDULE: Choices(((0.5, 0.75, 1.0), (0.5, 1.0)))})
    options = SearchOptions(max_concurrent=1, retries=0)
    disk, took = Filler(small_disk / "filler"), TrialRegistry.take

    def take(registry: TrialRegistry, name: str, report: Any) -> bool:
        goes_on = took(registry, name, report)
        if isinstance(report, Ended) and report.end.stage == 1:
            disk.begin()
        return goes_on

    def sweep() -> SweepResult:
        plan = plan_sweep(tiny_config(small_disk, "sweep", training=TRAINING), space, options)
        return run_sweep(plan, SweepConsole())

    with monkeypatch.context() as patch, disk:
        patch.setattr(TrialRegistry, "take", take)
        result = sweep()
    out = capsys.readouterr().out
    first, second = result.trials
    assert second.status == "failed", out  # it begins on a full disk
    assert first.status in ("failed", "done"), out  # its last files may fit into what it has just removed
    failed = [trial for trial in result.trials if trial.status == "failed"]
    assert all("No space left on device" in (trial.reason or "") for trial in failed), out
    assert "the sweep's state cannot be written, the sweep continues" in out
    assert "picture" in out
    result = sweep()
    assert [trial.status for trial in result.trials] == ["done", "done"]
    for trial in result.trials:
        alone = run_here(trial.config.replace(output={"storage_path": str(tmp_path / "alone"), "name": trial.name}))
        assert trial.digest == alone.summary["digest"]


class Filler:
    """Keeps a disk full from a moment on: a trial that removes what is old would find room for what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._fill)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._path.unlink()

    def begin(self) -> None:
        if self._thread.ident is None:
            self._thread.start()

    def _fill(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            while not self._is_over.wait(0.002):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"\0" * 4096)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk_at(tmp_path / "disk", megabytes=8) as disk:
        yield disk


def test_trials_that_could_never_be_placed_are_refused_with_the_numbers() -> None:
    nodes = [{"CPU": 4.0, "GPU": 1.0, "memory": 1.0}, {"CPU": 3.0}]
    assert num_trials_at_once(ClusterConfig(num_workers=1), nodes) == 7
    assert num_trials_at_once(ClusterConfig(num_workers=2, cpus_per_worker=2), nodes) == 1
    assert num_trials_at_once(ClusterConfig(num_workers=3), nodes) == 2
    with pytest.raises(ValueError, match=r"8 worker\(s\) of 1 CPU each would never fit: .*room for 7 such worker"):
        num_trials_at_once(ClusterConfig(num_workers=8), nodes)
    with pytest.raises(ValueError, match=r"2 worker\(s\) of 1 CPU and 1 GPU each .*7 CPUs, 1 GPU on 2 node"):
        num_trials_at_once(ClusterConfig(num_workers=2, use_gpu=True), nodes)


def test_what_an_autoscaler_may_bring_counts() -> None:
    head = [{"CPU": 0.0, "memory": 1.0}]
    assert num_trials_at_once(ClusterConfig(num_workers=2), head, {"CPU": 16.0, "GPU": 4.0}) == 8
    assert num_trials_at_once(ClusterConfig(num_workers=2, use_gpu=True), head, {"CPU": 16.0, "GPU": 4.0}) == 2
    assert num_trials_at_once(ClusterConfig(num_workers=1), [{"CPU": 3.0}], {"GPU": 4.0}) == 3
    assert num_trials_at_once(ClusterConfig(num_workers=1), head, {"CPU": float(sys.maxsize)}) > 1000
    with pytest.raises(
        ValueError, match=r"room for 0 such worker\(s\) .*autoscaler may provide room for 4; use a smaller"
    ):
        num_trials_at_once(ClusterConfig(num_workers=5, use_gpu=True), head, {"CPU": 16.0, "GPU": 4.0})


@pytest.mark.parametrize(
    ("may_grow", "max_concurrent", "expected"),
    [(False, None, 4), (False, 3, 3), (False, 9, 4), (True, None, 4), (True, 3, 3), (True, 9, 9)],
)
def test_where_a_cluster_may_grow_room_for_one_trial_is_waited_for(
    may_grow: bool, max_concurrent: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers may all be scaled down at the start."""
    nodes = [0.0] if may_grow else [4.0]

    class Growing:
        def most(self) -> Resources | None:
            return None

        def may_grow(self) -> bool:
            return may_grow

    def wait(cluster: ClusterConfig, tell: object, room: object) -> int:
        nodes.append(4.0)
        return 1

    monkeypatch.setattr(slots_module, "RayRoom", Growing)
    monkeypatch.setattr(slots_module, "wait_for_placement", wait)
    monkeypatch.setattr(slots_module, "_nodes", lambda: [{"CPU": cpus} for cpus in nodes])
    assert count_slots(ClusterConfig(num_workers=1), max_concurrent, print) == expected


def test_the_accuracy_on_the_test_set_is_the_bests_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that failed, and was tried again by the same command, may beat the one that was measured."""
    measured: list[str] = []

    def evaluate(config: RunConfig, **_: Any) -> Accuracy:
        measured.append(Path(str(config.network.weights)).parent.name)
        return Accuracy(num_samples=500, num_top1=400 + len(measured), num_top5=500, loss=0.1)

    monkeypatch.setattr(drive_module, "evaluate", evaluate)
    plan = plan_sweep(tiny_config(tmp_path, "sweep"), Space({LR: Choices((0.1, 0.2))}), SearchOptions())
    plan.folder.path.mkdir()

    def start() -> Drive:
        state = plan.folder.read()
        return Drive(plan, plan.registry(state), SweepConsole(), state)

    def end(drive: Drive, number: int, top1: float) -> None:
        trial = drive._registry.trials[number]
        trial.status, trial.top1 = "done", top1
        drive._save()
        drive.measure(trial)

    drive = start()
    drive._registry.trials[1].status = "failed"
    assert drive.test is None
    end(drive, 0, 90.0)
    assert measured == ["t001"]
    again = start()
    again.measure(again._registry.trials[0])
    assert (again.test, measured) == (drive.test, ["t001"])
    again._registry.trials[1].status, again._registry.trials[1].top1 = "done", 95.0
    assert again.test is None
    end(again, 1, 95.0)
    assert measured == ["t001", "t002"]
    assert again.test is not None
    assert again.test.num_top1 == 402
    assert start().test == again.test


def test_weights_that_are_refused_end_the_sweep_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = SearchOptions(reuse=False)
    plan = plan_sweep(tiny_config(tmp_path, "sweep"), Space({LR: Choices((0.1, 0.2, 0.3))}), options)
    plan.folder.path.mkdir()
    drive = Drive(plan, plan.registry(), SweepConsole(), None)
    assert isinstance(drive._suggest(2, None), dict)
    assert isinstance(drive._suggest(2, None), dict)
    capsys.readouterr()
    drive._take("t001", Refused("near chance"))
    assert drive.refusal == "near chance"
    drive._take("t002", Refused("near chance"))
    assert drive._suggest(2, None) == "FINISHED"
    assert capsys.readouterr().out == ""  # whoever drives it says it, once


def test_a_trial_that_is_refused_after_others_have_trained_is_one_that_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_sweep(tiny_config(tmp_path, "sweep"), Space({LR: Choices((0.1, 0.2))}), SearchOptions())
    plan.folder.path.mkdir()
    drive = Drive(plan, plan.registry(), SweepConsole(), None)
    drive._suggest(1, None)
    drive._take("t001", Ended(End(stage=0, portion=0.0, top1=90.0, seconds=1.0, how="trained")))
    drive._take("t001", Done(top1=90.0, digest="d"))
    drive._suggest(1, None)
    drive._take("t002", Refused("near chance"))
    assert drive.refusal is None
    assert "t002  failed    near chance" in capsys.readouterr().out


def test_a_trial_that_cannot_be_told_to_stop_does_not_end_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk may have no room for the file that tells it."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TrialRegistry, "_stays", lambda *_: False)
    plan = plan_sweep(tiny_config(tmp_path, "sweep"), Space({LR: Choices((0.1, 0.2))}), SearchOptions())
    plan.folder.path.mkdir()
    drive = Drive(plan, plan.registry(), SweepConsole(), None)
    drive._suggest(1, None)
    monkeypatch.setattr(Path, "touch", full)
    drive._take("t001", Ended(End(stage=0, portion=0.0, top1=9.0, seconds=1.0, how="trained")))
    drive._take("t001", Done(top1=99.0, digest="d"))  # it has trained on
    trial = drive._registry.trials[0]
    assert (trial.status, trial.top1) == ("stopped", None)
    assert "t001  cannot be stopped, trains on, and does not count: [Errno 28]" in capsys.readouterr().out


def test_an_accuracy_of_nobody_knows_whom_is_measured_again(tmp_path: Path) -> None:
    """As earlier versions of the program have left it: by then another trial may have been the best."""
    plan = plan_sweep(tiny_config(tmp_path, "sweep"), Space({LR: Choices((0.1,))}), SearchOptions())
    registry = plan.registry()
    registry.trials[0].status, registry.trials[0].top1 = "done", 90.0
    accuracy = Accuracy(num_samples=500, num_top1=400, num_top5=500, loss=0.1)
    state = plan.state(registry, best="t001", test=vars(accuracy))
    assert Drive(plan, registry, SweepConsole(), state).test is None
    assert Drive(plan, registry, SweepConsole(), {**state, "tested": "t001"}).test == accuracy


def test_a_trial_waits_on_where_others_hold_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else two sweeps on one cluster would give up each other's trials after --placement-timeout."""
    found: list[Any] = [NoRoomError("there is none"), NoRoomError("there is none"), {"top1": 1.0}]

    def quantize(*_: Any, **__: Any) -> Any:
        if isinstance(found[0], NoRoomError):
            raise found.pop(0)
        return found[0]

    monkeypatch.setattr(sweep_trial, "quantize", quantize)
    plan = plan_sweep(tiny_config(tmp_path, "sweep"), Space({LR: Choices((0.1,))}), SearchOptions())
    registry, told = plan.registry(), Recorder()
    spec = plan.spec(registry, registry.trials[0])
    assert sweep_trial._quantize_once_there_is_room(spec, told, StopSignals()) == {"top1": 1.0}
    assert told.events == [Note("there is none; the trial keeps waiting")] * 2


def test_trackers_of_trials_hear_what_the_drivers_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    tracked = tiny_config(tmp_path).replace(output={"track": ("wandb",)})
    assert {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}.items() <= _of_trackers(
        tracked
    ).items()
    assert all(name.startswith(("WANDB_", "MLFLOW_")) for name in _of_trackers(tracked))
    assert _of_trackers(tiny_config(tmp_path)) == {}


def test_a_full_disk_at_the_very_end_leaves_the_best_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_sweep(tiny_config(tmp_path, "sweep"), Space({LR: Choices((0.1,))}), SearchOptions())
    registry = plan.registry()
    registry.trials[0].top1, registry.trials[0].status = 90.0, "done"
    leave(plan, registry.trials, SweepConsole())  # its folder is not there: nothing can be written
    out = capsys.readouterr().out
    assert "the picture cannot be written: " in out
    assert "the recipe cannot be written: " in out
    assert f"command   {shlex.join(program('quantize'))}" in out


def test_search_spaces_of_ray_tune_are_taken() -> None:
    assert axis_of(LR, tune.loguniform(1e-4, 1e-1)) == Range(1e-4, 1e-1, log=True)
    assert axis_of(LR, tune.uniform(0.1, 0.2)) == Range(0.1, 0.2, log=False)
    assert axis_of(LR, tune.choice([0.1, 0.2])) == Choices((0.1, 0.2))
    assert axis_of(LR, tune.grid_search([0.1, 0.2])) == Choices((0.1, 0.2))
    assert axis_of("training.epochs", tune.randint(1, 4)) == Choices((1, 2, 3))
    assert axis_of(LR, [0.1]) == Choices((0.1,))
    assert axis_of(LR, Range(0.1, 0.2)) == Range(0.1, 0.2)
    assert axis_of(LR, tune.grid_search(np.linspace(0.1, 0.2, 2))) == Choices((0.1, 0.2))
    assert json.dumps(asdict(axis_of("training.epochs", np.array([1, 2]).tolist()))) == '{"values": [1, 2]}'
    assert all(type(value) is int for value in axis_of("training.epochs", tune.choice(list(np.arange(1, 3)))).values)
    with pytest.raises(ValueError, match=r"training\.lr is a str: use tune\.choice"):
        axis_of(LR, "0.1")
    for domain in (tune.quniform(0.1, 0.5, 0.1), tune.randn(), tune.lograndint(1, 9)):
        with pytest.raises(ValueError, match=r"training\.lr is a (Quantized|Normal|LogUniform) "):
            axis_of(LR, domain)
