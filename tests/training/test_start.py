"""What a start of a run finds, on this machine and on a storage."""

import contextlib
import errno
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from inq_ray.files import name_lock
from inq_ray.training.checkpoint.resume import Finished, Resume, Start
from inq_ray.training.config import RunConfig
from inq_ray.training.report.events import Note
from inq_ray.training.report.incident import Incident
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.start import held, look, prepare
from tests.training.runs import Finished as Run
from tests.training.runs import StoppedError, needs_digits, run_here, stopped_after, tiny_config

pytestmark = needs_digits


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_here(tiny_config(tmp_path_factory.mktemp("runs")))


def test_a_new_name_starts(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    decision = look(config, fingerprint=None)
    assert isinstance(decision, Start)
    assert not any(tmp_path.iterdir())
    assert prepare(config, decision).config.is_file()


def test_a_run_that_ended_before_its_first_checkpoint_starts_by_the_same_command(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    RunFolder.create(config).metrics_jsonl.write_text("of the run that ended")
    decision = look(config, fingerprint=None)
    assert isinstance(decision, Start)
    folder = prepare(config, decision)
    finished = run_here(config)
    assert [event.text for event in finished.told.events if isinstance(event, Incident)] == [
        "beginning again: there is no checkpoint"
    ]
    assert folder.metrics_jsonl.read_text().count("\n") == len(finished.told.rows)


def test_a_finished_run_says_so_and_an_unfinished_one_goes_on(run: Run) -> None:
    config = tiny_config(run.folder.path.parent)
    assert isinstance(look(config, fingerprint=None), Finished)
    summary = run.folder.summary.read_text()
    run.folder.summary.unlink()
    decision = look(config, fingerprint=None)
    run.folder.summary.write_text(summary)
    assert isinstance(decision, Resume)
    assert decision.entry.position.name == "checkpoint-02-0001-00000000"


def test_what_differs_is_named(run: Run) -> None:
    config = tiny_config(run.folder.path.parent, training={"lr": 0.5})
    with pytest.raises(ValueError, match=r"^run tiny was made with --lr 0.02 \(now 0.5\); .*--overwrite"):
        look(config, fingerprint=None)


def test_other_data_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "summary", run.folder.path / "none")  # as if it were unfinished
    with pytest.raises(ValueError, match=r"^run tiny was made with --data .* as it was"):
        look(tiny_config(run.folder.path.parent), fingerprint="other data")


def test_never_and_overwrite(run: Run) -> None:
    config = tiny_config(run.folder.path.parent)
    with pytest.raises(ValueError, match="--resume never"):
        look(config.replace(output={"resume": "never"}), fingerprint=None)
    assert isinstance(look(config.replace(output={"overwrite": True}), fingerprint=None), Start)


def test_a_checkpoint_by_its_path_begins_a_run_of_another_name(run: Run, tmp_path: Path) -> None:
    checkpoint = run.folder.path / "checkpoints" / "checkpoint-01-0001-00000000"
    config = tiny_config(tmp_path, "other").replace(output={"resume": str(checkpoint)})
    decision = look(config, fingerprint=None)
    assert isinstance(decision, Resume)
    prepare(config, decision)
    begun = run_here(config)
    assert begun.summary["digest"] == run.summary["digest"]
    assert begun.summary["events"] == {"counts": {}, "seconds_lost": 0.0}, "it was never interrupted"
    assert not begun.folder.events.exists()
    assert Note(f"beginning with {checkpoint.name} of another run") in begun.told.events
    with pytest.raises(ValueError, match="not a checkpoint"):
        look(config.replace(output={"resume": str(tmp_path), "name": "third"}), fingerprint=None)


def test_an_earlier_checkpoint_of_the_run_itself_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "summary", run.folder.path / "none")  # as if it were unfinished
    checkpoint = run.folder.path / "checkpoints" / "checkpoint-01-0001-00000000"
    config = tiny_config(run.folder.path.parent).replace(output={"resume": str(checkpoint)})
    with pytest.raises(ValueError, match="run tiny has later checkpoints, up to checkpoint-02-0001-00000000"):
        look(config, fingerprint=None)


def test_the_command_that_began_a_run_by_a_path_goes_on_with_it(run: Run, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-01-0001-00000000"
    shutil.copytree(run.folder.path / "checkpoints" / checkpoint.name, checkpoint)
    config = tiny_config(tmp_path / "runs", "other").replace(output={"resume": str(checkpoint)})
    prepare(config, look(config, fingerprint=None))  # and it ends before its first checkpoint
    with pytest.raises(ValueError, match=f"pass --resume {checkpoint}, from which it was started"):
        look(config.replace(output={"resume": "auto"}), fingerprint=None)
    decision = look(config, fingerprint=None)
    assert isinstance(decision, Resume)
    assert decision.entry.position.name == checkpoint.name
    with pytest.raises(StoppedError), stopped_after((2, 1, 1)):
        run_here(config)
    finished = run_here(config)
    assert finished.summary["events"]["counts"] == {"resumed": 1}
    assert finished.summary["events"]["seconds_lost"] <= time.time() - finished.folder.config.stat().st_mtime
    shutil.rmtree(checkpoint)
    assert isinstance(look(config, fingerprint=None), Finished)
    finished.folder.summary.unlink()
    decision = look(config, fingerprint=None)
    assert isinstance(decision, Resume)
    assert decision.entry.position.name == "checkpoint-02-0001-00000000"


@pytest.mark.parametrize("resume", ["auto", "never", "path"])
def test_checkpoints_elsewhere_outlive_the_folder_of_their_run(run: Run, tmp_path: Path, resume: str) -> None:
    config = tiny_config(tmp_path / "runs").replace(output={"checkpoint_path": str(tmp_path / "elsewhere")})
    run_here(config)
    shutil.rmtree(RunFolder.planned(config).path)
    if resume == "path":
        resume = str(run.folder.path / "checkpoints" / "checkpoint-01-0001-00000000")
    again = config.replace(output={"resume": resume})
    if resume != "auto":
        with pytest.raises(ValueError, match=r"an unfinished run of that name|has later checkpoints"):
            look(again, fingerprint=None)
        return
    decision = look(again, fingerprint=None)
    assert isinstance(decision, Resume)
    prepare(again, decision)
    assert run_here(again).summary["digest"] == run.summary["digest"]
    shutil.rmtree(RunFolder.planned(config).path)
    with pytest.raises(ValueError, match=r"^run tiny was made with --lr"):
        look(again.replace(training={"lr": 0.5}), fingerprint=None)


def test_overwriting_deletes_checkpoints_that_lie_elsewhere(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "runs").replace(output={"checkpoint_path": str(tmp_path / "elsewhere")})
    run_here(config)
    assert any((tmp_path / "elsewhere" / "tiny").iterdir())
    assert not (RunFolder.planned(config).path / "checkpoints").exists()
    again = config.replace(output={"overwrite": True})
    prepare(again, look(again, fingerprint=None))
    assert not any((tmp_path / "elsewhere" / "tiny").iterdir())


def test_checkpoints_that_lie_where_the_run_was_started_are_not_passed_over(tmp_path: Path) -> None:
    started = tiny_config(tmp_path / "runs").replace(output={"checkpoint_path": str(tmp_path / "elsewhere")})
    finished = run_here(started)
    finished.folder.summary.unlink()
    for path in (None, str(tmp_path / "third")):
        with pytest.raises(
            ValueError, match=rf"^--name tiny: .* at {tmp_path}/elsewhere/tiny: pass the --checkpoint-path"
        ):
            look(started.replace(output={"checkpoint_path": path}), fingerprint=None)
    assert isinstance(look(started, fingerprint=None), Resume)
    again = started.replace(output={"checkpoint_path": None, "overwrite": True})
    assert isinstance(look(again, fingerprint=None), Start)


@pytest.mark.parametrize("path", [None, "elsewhere"])
def test_checkpoints_are_not_deleted_through_a_link(tmp_path: Path, path: str | None) -> None:
    config = tiny_config(tmp_path).replace(output={"checkpoint_path": path and str(tmp_path / path)})
    (tmp_path / "precious").mkdir()
    link = tmp_path / path / "tiny" if path else RunFolder.create(config).path / "checkpoints"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match=f"^{link} is a link"):
        look(config, fingerprint=None)


def hold(config: RunConfig, started: Any, ended: Any) -> None:
    with held(config, lambda _: None):
        started.set()
        ended.wait(600)


def enter(config: RunConfig) -> None:
    with held(config, print):
        return


def test_a_name_is_started_once_at_a_time(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "one")
    context = torch.multiprocessing.get_context("forkserver")
    started, ended = context.Event(), context.Event()
    process = context.Process(target=hold, args=(config, started, ended), daemon=True)
    process.start()
    assert started.wait(300)
    with (
        pytest.raises(ValueError, match=r"^--name one: this run is running \(process ") as refused,
        held(config, print),
    ):
        raise AssertionError("it was let in")
    assert str(process.pid) in str(refused.value)
    with held(tiny_config(tmp_path, "two"), print):
        pass  # another name is nobody's business
    process.kill()
    process.join(300)
    with held(config, print):
        pass  # whoever was killed holds nothing
    assert sorted(path.name for path in tmp_path.iterdir()) == [".one.lock", ".two.lock"]


def test_storages_without_locks_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none(path: Path) -> contextlib.AbstractContextManager[None]:
        raise OSError(errno.ENOLCK, "No locks available")

    told: list[str] = []
    monkeypatch.setattr(name_lock, "locked", none)
    with held(tiny_config(tmp_path, "one"), told.append):
        assert len(told) == 1
    assert "do not start two runs of the same name at a time" in told[0]
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match=r"^--storage-path .*cannot write there"),
        held(tiny_config(tmp_path / "file"), print),
    ):
        raise AssertionError("it was let in")


def twins(tmp_path: Path) -> list[RunConfig]:
    """Two runs of one name and checkpoint path, which differ in storage and learning rate."""
    both = {"checkpoint_path": str(tmp_path / "both")}
    return [
        tiny_config(tmp_path / storage, "twin", training={"lr": lr, "limit_batches": 2, "float_epochs": 1, "epochs": 1})
        .replace(output=both)
        for storage, lr in (("a", 0.02), ("b", 0.05))
    ]  # fmt: skip


def test_a_name_is_held_where_the_checkpoints_are_too(tmp_path: Path) -> None:
    one, two = twins(tmp_path)
    with held(one, print):
        with (
            pytest.raises(ValueError, match=r"^--name twin: .*the same --checkpoint-path is running"),
            held(two, print),
        ):
            raise AssertionError("it was let in")
        with held(two.replace(output={"name": "other"}), print):
            pass
    with held(two, print):
        pass
    same = one.replace(output={"checkpoint_path": one.output.storage_path})
    with held(same, print):  # one lock, which is not taken twice
        pass


def test_storages_of_objects_know_no_locks(tmp_path: Path) -> None:
    told: list[str] = []
    with held(tiny_config(tmp_path).replace(output={"checkpoint_path": "s3://bucket/runs"}), told.append):
        assert told == ["s3://bucket/runs has no file locks: do not start two runs of the same name at a time"]


def test_a_checkpoint_of_another_configuration_is_never_taken(tmp_path: Path) -> None:
    """As on a storage without locks: both have started, the other one is the first to write."""
    one, two = twins(tmp_path)
    for config in (one, two):
        prepare(config, look(config, fingerprint=None))
    run_here(two)
    with pytest.raises(
        ValueError, match=r"both/twin: checkpoint-.* was made with --lr 0\.05 \(now 0\.02\): another run"
    ):
        run_here(one)
    assert not RunFolder.planned(one).is_finished


@pytest.mark.parametrize("path", ["/proc/x", "/dev/null/x", "/proc/1/x/y"])
@pytest.mark.parametrize("field", ["storage_path", "checkpoint_path"])
def test_folders_that_cannot_be_written_to_are_refused_before_the_start(tmp_path: Path, field: str, path: str) -> None:
    config = tiny_config(tmp_path).replace(output={field: path})
    flag = f"--{field.replace('_', '-')}"
    with pytest.raises(ValueError, match=rf"^{flag} {path}: .*(is not writable|is not a folder).*: use another"):
        look(config, fingerprint=None)
    assert not any(tmp_path.iterdir())
