"""Disks that fill up or turn read-only, files that are damaged, in the middle of real runs: the same bits in the end.

A fault either passes and is said, or ends the run in one line; then the same start, with the fault mended, goes on.
"""

import contextlib
import csv
import dataclasses
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from inq_ray.cluster.node.shared_folders import folders_of
from inq_ray.training.attempt import Attempt, StaleAttemptError, begun
from inq_ray.training.checkpoint.resume import Finished, Resume
from inq_ray.training.config import RunConfig
from inq_ray.training.loop.trainer import EpochState
from inq_ray.training.report.progress import Epoch
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.start import look, prepare
from tests.disks import Mounted, small_disk_at
from tests.ranks import rank_outcomes, run_ranks
from tests.training.runs import (
    Recorder,
    StoppedError,
    after_each_step,
    needs_digits,
    read_summary,
    run_here,
    tiny_config,
)

pytestmark = [needs_digits, pytest.mark.system]

# Of a row, what a watch says.
TIMES = ("validation_seconds", "train_seconds", "data_seconds", "network_seconds", "images_per_second")

# (stage, epoch, step) of a step of the run.
At = tuple[int, int, int]


class Told(NamedTuple):
    """A run that came to its end: digest of its weights, and the lines that it told."""

    digest: str
    lines: list[str]


def configured(storage: Path, name: str = "run", **sections: dict[str, Any]) -> RunConfig:
    """Six steps an epoch, two epochs a phase, a checkpoint after every second step."""
    training: dict[str, Any] = {"batch_size": 200, "float_epochs": 2, "epochs": 2, **sections.pop("training", {})}
    config = tiny_config(storage, name, training=training, **sections)
    return config.replace(output={"checkpoint_every": "2"})


def stop() -> None:
    raise StoppedError


def run_with(config: RunConfig, faults: dict[At, Callable[[], None]]) -> Told:
    """Runs in this process, or rank; each of the faults happens after its step, when nothing is being written."""

    def on_faulty_step(epoch: Epoch, state: EpochState) -> None:
        fault = faults.get((epoch.stage, epoch.epoch, state.step))
        if fault is not None:
            fault()

    with after_each_step(on_faulty_step):
        finished = run_here(config)
    return Told(finished.summary["digest"], told_by(finished.told))


def told_by(recorder: Recorder) -> list[str]:
    return [event.text for event in recorder.events if hasattr(event, "text")]


def stopped_at(config: RunConfig, at: At) -> Path:
    """The folder of a run that was stopped there."""
    with pytest.raises(StoppedError):
        run_with(config, {at: stop})
    return RunFolder.planned(config).path


def rows(config: RunConfig) -> list[dict[str, str]]:
    with RunFolder.planned(config).metrics_csv.open() as table:
        return [{name: row[name] for name in row if name not in TIMES} for row in csv.DictReader(table)]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run that nothing has happened to."""
    config = configured(tmp_path_factory.mktemp("calm"))
    run_with(config, {})
    return config


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The same, stopped near its end."""
    config = configured(tmp_path_factory.mktemp("interrupted"))
    stopped_at(config, (2, 2, 5))
    return config


def digest_of(config: RunConfig) -> str:
    digest: str = read_summary(RunFolder.planned(config))["digest"]
    return digest


def copied(config: RunConfig, to: Path) -> RunConfig:
    """The same run in another storage, as it stands."""
    there = config.replace(output={"storage_path": str(to)})
    shutil.copytree(RunFolder.planned(config).path, RunFolder.planned(there).path)
    return there


# A storage that is away for a while, and writers whose time is over.


def run_attempt(config: RunConfig, mark: str, faults: dict[At, Callable[[], None]]) -> Told:
    """As :func:`run_with`, by a worker of an attempt."""
    planned = RunFolder.planned(config)
    with pytest.MonkeyPatch.context() as patch:
        attempt = Attempt(mark, tuple(folders_of(config).values()))
        patch.setattr(RunFolder, "planned", lambda _: dataclasses.replace(planned, attempt=attempt))
        return run_with(config, faults)


@pytest.mark.parametrize("has_own", [True, False])
def test_a_storage_that_is_moved_away_and_back_loses_nothing(
    has_own: bool, calm: RunConfig, short_pauses: None, tmp_path: Path
) -> None:
    """A bug once: its path was made again on the disk below, and rows of metrics were missing."""
    config = configured(tmp_path / "runs")
    if has_own:
        config = config.replace(output={"checkpoint_path": str(tmp_path / "kept")})
    prepare(config, look(config, fingerprint=None))
    root = tmp_path / ("kept" if has_own else "runs")
    with begun(folders_of(config), pytest.fail) as mark:
        faults = {
            (1, 1, 3): lambda: os.rename(root, tmp_path / "away"),
            (1, 2, 3): lambda: os.rename(tmp_path / "away", root),  # which fails if the path was made again
        }
        told = run_attempt(config, mark, faults)
    assert told.digest == digest_of(calm)
    assert rows(config) == rows(calm)
    assert len(RunFolder.planned(config).metrics_jsonl.read_text().splitlines()) == len(rows(calm))
    assert [line for line in told.lines if "training continues and the previous one stays: cannot write" in line]
    assert [line for line in told.lines if "checkpoints are written again" in line]


@pytest.mark.parametrize("has_own", [True, False])
def test_a_storage_that_is_unmounted_and_mounted_again_loses_nothing(
    has_own: bool, calm: RunConfig, short_pauses: None, tmp_path: Path
) -> None:
    """Its folder is there all the time, and empty while it is not mounted."""
    config = configured(tmp_path / "runs")
    if has_own:
        config = config.replace(output={"checkpoint_path": str(tmp_path / "kept")})
    root = tmp_path / ("kept" if has_own else "runs")
    for folder in (tmp_path / "server", root):
        folder.mkdir()
    mounted = Mounted(tmp_path / "server", root)
    try:
        prepare(config, look(config, fingerprint=None))
        with begun(folders_of(config), pytest.fail) as mark:
            told = run_attempt(config, mark, {(1, 1, 3): mounted.unmount, (1, 2, 3): mounted.mount})
        assert told.digest == digest_of(calm)
        assert rows(config) == rows(calm)
        assert len(RunFolder.planned(config).metrics_jsonl.read_text().splitlines()) == len(rows(calm))
    finally:
        mounted.unmount()
    assert not list(root.iterdir()), "nothing was written to the disk below"


def test_a_storage_that_does_not_come_back_ends_the_run_in_one_line(short_pauses: None, tmp_path: Path) -> None:
    config = configured(tmp_path / "runs")
    prepare(config, look(config, fingerprint=None))
    with (
        begun(folders_of(config), pytest.fail) as mark,
        pytest.raises(
            ValueError, match=r"^cannot write to .*/run: failed 6 times .* cannot be reached any more; "
        ) as error,
    ):
        run_attempt(config, mark, {(2, 1, 3): lambda: os.rename(tmp_path / "runs", tmp_path / "away")})
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_stale_writer_writes_nothing_more(tmp_path: Path) -> None:
    """A bug once: frozen, and thawed beside another start of its run, it wrote rows a second time."""
    config = configured(tmp_path)
    prepare(config, look(config, fingerprint=None))
    folder = RunFolder.planned(config)
    before: dict[str, bytes] = {}
    with begun(folders_of(config), pytest.fail) as mark, contextlib.ExitStack() as stack:

        def take_over() -> None:
            stack.enter_context(begun(folders_of(config), pytest.fail))
            before.update(contents(folder.path))

        with pytest.raises(StaleAttemptError, match="another start of this run"):
            run_attempt(config, mark, {(1, 1, 3): take_over})
        assert contents(folder.path) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Disks.


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk_at(tmp_path / "disk", megabytes=4) as disk:
        yield disk


def fill(disk: Path) -> None:
    """Takes all the room there is."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)


def clear(disk: Path) -> None:
    (disk / "filler").unlink()


def remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)


DISKS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None], str]] = {
    "full": (fill, clear, "No space left on device"),
    "read-only": (lambda disk: remount(disk, "ro"), lambda disk: remount(disk, "rw"), "Read-only file system"),
}


@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_that_fails_for_a_while(disk: Path, calm: RunConfig, kind: str) -> None:
    """The run goes on, says so once, catches up on what it could not write, and ends with the same bits."""
    fail, mend, reason = DISKS[kind]
    config = configured(disk)
    told = run_with(config, {(0, 2, 3): lambda: fail(disk), (1, 2, 3): lambda: mend(disk)})
    assert told.digest == digest_of(calm)
    assert rows(config) == rows(calm)
    failed = [line for line in told.lines if line.startswith("a checkpoint failed, training continues")]
    assert len(failed) == 1
    assert reason in failed[0]
    assert sum(line.startswith("checkpoints are written again") for line in told.lines) == 1
    assert all("\n" not in line for line in told.lines)
    counts = read_summary(RunFolder.planned(config))["events"]["counts"]
    assert counts["checkpoint_failed"] == 2
    if kind == "read-only":  # a full disk may have room for a line
        assert "metrics cannot be written, the run continues: Read-only file system" in told.lines
        assert "metrics are written again" in told.lines
        assert counts["metrics_failed"] == 2


@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_that_fails_until_the_end(disk: Path, calm: RunConfig, kind: str) -> None:
    """One line, nothing lost: the same start goes on from the last checkpoint, once there is room."""
    fail, mend, reason = DISKS[kind]
    config = configured(disk)
    with pytest.raises(ValueError, match=f"^cannot write the result to .*: .*{reason}.*; free some space") as error:
        run_with(config, {(1, 1, 5): lambda: fail(disk)})
    assert "\n" not in str(error.value)
    mend(disk)
    assert isinstance(look(config, fingerprint=None), Resume)
    told = run_with(config, {})
    assert told.digest == digest_of(calm)
    assert told.lines == ["continuing from checkpoint-01-0000-00000004"]
    assert rows(config) == rows(calm)


def test_a_disk_that_is_full_from_the_start(disk: Path) -> None:
    config = configured(disk)
    RunFolder.create(config)
    fill(disk)
    with pytest.raises(ValueError, match=r"^the first checkpoint failed: .*No space left on device"):
        run_with(config, {})


def test_files_that_may_not_grow(tmp_path: Path, calm: RunConfig) -> None:
    """A quota, which every user meets: no mount is needed."""
    config = configured(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(num_bytes: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))

    try:
        told = run_with(config, {(1, 1, 3): lambda: limit(4096), (2, 1, 1): lambda: limit(soft)})
    finally:
        limit(soft)
    assert told.digest == digest_of(calm)
    assert rows(config) == rows(calm)
    assert sum("File too large" in line for line in told.lines) in (1, 2)


def ranks_on_a_full_disk(config: RunConfig, disk: str) -> Told:
    """On each rank; rank 0 has the disk."""
    import torch

    is_first = torch.distributed.get_rank() == 0
    return run_with(config, {(0, 2, 3): lambda: fill(Path(disk)) if is_first else None})


def test_all_ranks_end_alike_where_the_result_cannot_be_written(disk: Path) -> None:
    config = configured(disk)
    outcomes = rank_outcomes(ranks_on_a_full_disk, 2, config, str(disk))
    assert "cannot write the result" in str(outcomes[0].error)
    clear(disk)
    calm_digests = run_ranks(run_with, 2, configured(disk, "calm"), {})
    assert run_ranks(run_with, 2, config, {})[0].digest == calm_digests[0].digest


# Files.


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "missing": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["manifest.json", "facts.json", "tensors.safetensors"])
def test_a_damaged_checkpoint(tmp_path: Path, calm: RunConfig, interrupted: RunConfig, file: str, damage: str) -> None:
    config = copied(interrupted, tmp_path)
    checkpoints = sorted((RunFolder.planned(config).path / "checkpoints").iterdir())
    DAMAGE[damage](checkpoints[-1] / file)
    decision = look(config, fingerprint=None)
    assert isinstance(decision, Resume)
    assert decision.notes[0].startswith(f"{checkpoints[-1].name} is damaged and ignored: {file}")
    told = run_with(config, {})
    assert told.digest == digest_of(calm)
    assert told.lines[0].startswith(f"{checkpoints[-1].name} is damaged and ignored: {file}")
    assert told.lines[1].startswith(f"continuing from {checkpoints[-2].name}")
    assert rows(config) == rows(calm)


def test_all_checkpoints_damaged_is_one_line(tmp_path: Path, interrupted: RunConfig) -> None:
    config = copied(interrupted, tmp_path)
    for folder in (RunFolder.planned(config).path / "checkpoints").iterdir():
        flip(folder / "tensors.safetensors")
    with pytest.raises(ValueError, match=r"all \d checkpoint\(s\) are damaged, checkpoint-02-") as error:
        look(config, fingerprint=None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["config.json", "metrics.jsonl", "metrics.csv", "events.jsonl"])
def test_a_damaged_file_of_the_runs_folder(
    tmp_path: Path, calm: RunConfig, interrupted: RunConfig, file: str, damage: str
) -> None:
    config = copied(interrupted, tmp_path)
    path = RunFolder.planned(config).path / file
    if file == "events.jsonl":
        path.write_text('{"time": 1.0, "kind": "resumed", "text": "x", "seconds_lost": 2.0}\n')
    whole = path.read_bytes()
    DAMAGE[damage](path)
    if (file, damage) == ("config.json", "missing"):
        with pytest.raises(ValueError, match="exists and is not a run: use another --name"):
            look(config, fingerprint=None)
        path.write_bytes(whole)
    decision = look(config, fingerprint=None)
    assert isinstance(decision, Resume)
    prepare(config, decision)
    assert run_with(config, {}).digest == digest_of(calm)
    assert rows(config) == rows(calm)
    assert isinstance(look(config, fingerprint=None), Finished)


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing"])
def test_a_damaged_summary_is_written_anew(tmp_path: Path, calm: RunConfig, damage: str) -> None:
    config = copied(calm, tmp_path)
    assert isinstance(look(config, fingerprint=None), Finished)
    DAMAGE[damage](RunFolder.planned(config).summary)
    decision = look(config, fingerprint=None)
    assert isinstance(decision, Resume)
    prepare(config, decision)
    assert run_with(config, {}).digest == digest_of(config) == digest_of(calm)
    assert isinstance(look(config, fingerprint=None), Finished)


def test_a_run_without_a_checkpoint_whose_configuration_is_damaged(tmp_path: Path) -> None:
    config = configured(tmp_path)
    folder = RunFolder.create(config)
    os.truncate(folder.config, 40)
    with pytest.raises(
        ValueError, match=r"^--name run: .*config.json is damaged \(the configuration is not JSON"
    ) as error:
        look(config, fingerprint=None)
    assert "\n" not in str(error.value)
    assert isinstance(look(config.replace(output={"overwrite": True}), fingerprint=None), object)
