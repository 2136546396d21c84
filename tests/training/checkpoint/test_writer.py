"""Checkpoints written by a thread: what is copied, put off, tried again, said, and waited for."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from inq_ray.files import folder as folder_module
from inq_ray.storage.address import locate
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.retention import Entry
from inq_ray.training.checkpoint.snapshot import MODEL, SUMS, Snapshot
from inq_ray.training.checkpoint.store import CheckpointStore
from inq_ray.training.checkpoint.writer import CheckpointWriter
from tests.training.checkpoint.killer import KilledError, Killer
from tests.training.checkpoint.networks import make_snapshot, simple, snapshot_bits


def at(step: int) -> TrainingPosition:
    return TrainingPosition(stage=1, epoch=0, step=step)


def numbered(step: int) -> Snapshot:
    return simple(at(step), step)


class Gate(CheckpointStore):
    """A store whose saving waits until it is let go, and fails when told to."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(locate(str(folder)), **options)
        self.go = threading.Event()
        self.error: BaseException | None = None

    def save(self, snapshot: Snapshot, **options: Any) -> Entry:
        assert self.go.wait(300)
        if self.error is not None:
            raise self.error
        return super().save(snapshot, **options)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@pytest.fixture
def told() -> list[str]:
    return []


def steps(store: CheckpointStore) -> list[int]:
    return [entry.position.step for entry in store.entries()]


def test_it_is_written_and_the_old_ones_are_deleted(tmp_path: Path, told: list[str]) -> None:
    store = CheckpointStore(locate(str(tmp_path)), keep_last=2)
    writer = CheckpointWriter(store, told.append)
    for step in range(1, 5):
        assert writer.write(numbered(step), is_stage_end=step == 1, top1=50.0, wait_seconds=30)
    assert writer.close()
    assert steps(store) == [4, 3, 1]
    assert writer.last is not None
    assert writer.last.entry == store.entries()[0]
    assert writer.last.entry.top1 == 50.0
    assert writer.last.seconds > 0
    assert told == []


def test_what_is_written_is_what_was_there_when_it_was_called(gate: Gate, told: list[str]) -> None:
    snapshot = make_snapshot()
    before = snapshot_bits(snapshot)
    writer = CheckpointWriter(gate, told.append)
    assert writer.write(snapshot)
    assert writer.is_busy
    with torch.no_grad():
        for tensor in snapshot.tensors.values():
            tensor.zero_()  # the training goes on
    gate.go.set()
    assert writer.close()
    found = gate.newest_good().snapshot
    assert found is not None
    assert snapshot_bits(found) == before


def test_another_is_put_off_while_one_is_being_written(gate: Gate, told: list[str]) -> None:
    writer = CheckpointWriter(gate, told.append)
    assert writer.write(numbered(1))
    assert not writer.write(numbered(2))
    assert told == []
    threading.Timer(0.2, gate.go.set).start()
    assert writer.write(numbered(3), wait_seconds=30)  # one that has to be
    assert writer.close()
    assert steps(gate) == [3, 1]


def test_waiting_has_a_bound(gate: Gate, told: list[str]) -> None:
    writer = CheckpointWriter(gate, told.append)
    writer.write(numbered(1))
    assert not writer.write(numbered(2), wait_seconds=0.05)
    assert not writer.close(0.05)
    assert told == [
        "checkpoint-01-0000-00000002 is skipped: the one before is not written after 0.05 s",
        "the last checkpoint is still not written after 0.05 s: giving up",
    ]
    gate.go.set()
    assert writer.close()
    assert steps(gate) == [1]


def test_buffers_are_used_again(tmp_path: Path, told: list[str]) -> None:
    writer = CheckpointWriter(CheckpointStore(locate(str(tmp_path))), told.append)
    snapshot = make_snapshot()
    writer.write(snapshot)
    writer.wait(30)
    positions = {name: buffer.data_ptr() for name, buffer in writer._buffers.items()}
    writer.write(make_snapshot(seed=1))
    writer.wait(30)
    assert {name: buffer.data_ptr() for name, buffer in writer._buffers.items()} == positions
    assert all(writer._buffers[name].stride() == tensor.stride() for name, tensor in snapshot.tensors.items())
    writer.write(numbered(9))
    assert list(writer._buffers) == [f"{MODEL}weight", SUMS]
    writer.close()
    assert writer._buffers == {}


def test_a_failure_is_said_once_and_ends_nothing_while_an_older_one_stands(gate: Gate, told: list[str]) -> None:
    gate.go.set()
    writer = CheckpointWriter(gate, told.append)
    writer.write(numbered(1))
    gate_error = ValueError("cannot write /x: No space left on device")
    for step in (2, 3, 4):
        writer.wait(30)
        gate.error = gate_error
        assert writer.write(numbered(step))
    writer.wait(30)
    assert told == [f"a checkpoint failed, training continues and the previous one stays: {gate_error}"]
    gate.error = None
    writer.write(numbered(5))
    assert writer.close()
    assert told[1:] == ["checkpoints are written again: checkpoint-01-0000-00000005; 3 failed before"]
    assert steps(gate) == [5, 1]


@pytest.mark.parametrize("has_older", [True, False])
def test_where_none_stands_a_failure_is_raised(gate: Gate, told: list[str], has_older: bool) -> None:
    gate.go.set()
    gate.error = ValueError("cannot write /x: Read-only file system")
    writer = CheckpointWriter(gate, told.append, has_older=has_older)
    writer.write(numbered(1))
    if has_older:
        assert writer.close()
        assert len(told) == 1
        return
    with pytest.raises(ValueError, match=r"the first checkpoint failed: cannot write /x: Read-only"):
        writer.close()
    assert told == []


@pytest.mark.parametrize("call", [lambda writer: writer.write(numbered(2), wait_seconds=30), CheckpointWriter.close])
def test_a_fault_of_ours_is_raised_in_the_thread_that_trains(
    gate: Gate, told: list[str], call: Callable[[CheckpointWriter], object]
) -> None:
    gate.go.set()
    gate.error = KeyError("ours")
    writer = CheckpointWriter(gate, told.append, has_older=True)
    writer.write(numbered(1))
    with pytest.raises(KeyError, match="ours"):
        call(writer)


def test_an_old_one_that_cannot_be_deleted_is_said(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(locate(str(tmp_path)))
    writer = CheckpointWriter(store, told.append)

    def prune(_: TrainingPosition) -> None:
        raise ValueError("cannot delete /x: Permission denied")

    monkeypatch.setattr(store, "prune", prune)
    writer.write(numbered(1))
    assert writer.close()
    assert told == [
        (
            "an old checkpoint cannot be deleted, and no new one is written before it is: "
            "cannot delete /x: Permission denied"
        )
    ]
    # Storage does not fill with what cannot be deleted: nothing is written until it can.
    for step in (2, 3):
        assert writer.write(numbered(step), wait_seconds=30)
    assert writer.close()
    assert steps(store) == [1]
    assert told[1:] == [
        "a checkpoint failed, training continues and the previous one stays: cannot delete /x: Permission denied"
    ]
    monkeypatch.undo()
    assert writer.write(numbered(4), wait_seconds=30)
    assert writer.close()
    assert steps(store) == [4, 1]
    assert told[2:] == ["checkpoints are written again: checkpoint-01-0000-00000004; 2 failed before"]


KILLS = ((folder_module, "_write_file"), (folder_module, "sync"), (Path, "rename"), (shutil, "rmtree"))


@pytest.mark.parametrize("is_done", [True, False])
def test_there_is_never_more_than_what_stays_and_one_that_is_written(
    tmp_path: Path, is_done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any step, started again, killed again at the same: what is left each time does not add up."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the power stays on
    most = 2 + 1  # the last two, and the one that is being written
    steps_in_all = 0
    for calls in range(200):
        folder = tmp_path / str(calls)
        store = CheckpointStore(locate(str(folder)), keep_last=2)
        newest = ends = 0
        for _ in range(3):
            killer = Killer(calls, is_done=is_done)
            with pytest.MonkeyPatch.context() as patch:
                for owner, name in KILLS:
                    patch.setattr(owner, name, counted(killer.wrap(getattr(owner, name)), folder, most))
                try:
                    newest = go_on(store)
                except KilledError:
                    steps_in_all += 1
                    continue
            ends += 1
        assert num_folders(folder) <= most
        found = store.newest_good()
        assert found.entry is None or found.entry.position.step >= newest
        if ends == 3:
            break
    else:
        pytest.fail("it never came to its end")
    assert steps_in_all > 40


def go_on(store: CheckpointStore) -> int:
    """What a run does: goes on from the newest, and takes three more."""
    store.clean()
    found = store.newest_good().entry
    newest = 0 if found is None else found.position.step
    if found is not None:
        store.discard_after(found.position)
    writer = CheckpointWriter(store, pytest.fail, newest=None if found is None else found.position)
    for step in range(newest + 1, newest + 4):
        writer.write(numbered(step), wait_seconds=30)
    writer.close()
    return newest + 3


def num_folders(folder: Path) -> int:
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def counted(function: Callable[..., Any], folder: Path, most: int) -> Callable[..., Any]:
    """Counts checkpoints, whole, half and hidden ones, after each step."""

    def call(*args: Any, **options: Any) -> Any:
        result = function(*args, **options)
        assert num_folders(folder) <= most, sorted(path.name for path in folder.iterdir())
        return result

    return call


@pytest.mark.gpu
def test_on_a_gpu_the_copy_is_of_the_moment_of_the_call(gate: Gate, told: list[str]) -> None:
    writer = CheckpointWriter(gate, told.append)
    weight = torch.zeros(4096, 4096, device="cuda")
    for _ in range(20):
        weight.add_(torch.ones(4096, 4096, device="cuda"))  # still in the queue
    snapshot = Snapshot({f"{MODEL}weight": weight}, numbered(1).facts)
    writer.write(snapshot)
    weight.zero_()
    assert all(buffer.is_pinned() for buffer in writer._buffers.values())
    gate.go.set()
    assert writer.close()
    found = gate.newest_good().snapshot
    assert found is not None
    assert bool((found.tensors[f"{MODEL}weight"] == 20).all())
