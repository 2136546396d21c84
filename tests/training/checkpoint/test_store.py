"""Stores on disk and on a real S3 server: whole or not there, whatever happens to writers, disks and files."""

import hashlib
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest
import torch

from inq_ray.distributed.wire import tensor_to_bytes
from inq_ray.files import folder as folder_module
from inq_ray.storage import retry as retry_module
from inq_ray.storage.address import Location, locate
from inq_ray.storage.retry import StorageError
from inq_ray.training.checkpoint import files as files_module
from inq_ray.training.checkpoint import store as store_module
from inq_ray.training.checkpoint.files import (
    DamagedError,
    FileBlocks,
    FileDigest,
    is_checkpoint,
    open_checkpoint,
)
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.snapshot import MODEL, Snapshot
from inq_ray.training.checkpoint.store import CheckpointStore
from tests.disks import small_disk_at
from tests.s3 import S3Server
from tests.training.checkpoint import networks
from tests.training.checkpoint.killer import Killer
from tests.training.checkpoint.networks import make_snapshot, snapshot_bits

pytestmark = pytest.mark.system

NUM_FLOATS = 50_000  # of a snapshot: 200 kB


def at(stage: int, epoch: int = 0, step: int = 0) -> TrainingPosition:
    return TrainingPosition(stage=stage, epoch=epoch, step=step)


def simple(position: TrainingPosition, value: float = 0.0, num: int = NUM_FLOATS) -> Snapshot:
    return networks.simple(position, value, num)


@pytest.fixture
def on_s3(s3: S3Server, request: pytest.FixtureRequest) -> Location:
    s3.file_system().create_dir("checkpoints")
    return locate(f"s3://checkpoints/{request.node.name}/run")


@pytest.fixture(params=["here", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "here":
        return locate(str(tmp_path / "run" / "checkpoints"))
    found = request.getfixturevalue("on_s3")
    assert isinstance(found, Location)
    return found


def value_of(store: CheckpointStore) -> float | None:
    return networks.value_of(store.newest_good().snapshot)


def names(store: CheckpointStore) -> list[str]:
    return [store.location.relative(info) for info in store.location.list()]


def test_the_newest_is_found(location: Location) -> None:
    store = CheckpointStore(location)
    assert store.newest_good() == (None, None, ())
    assert store.clean() == []
    for position in (at(0, 9, 5), at(1), at(1, 0, 30), at(1, 0, 4)):
        entry = store.save(simple(position, position.step), is_stage_end=position.step == 5, top1=50.5)
        assert (entry.position, entry.is_stage_end, entry.top1) == (position, position.step == 5, 50.5)
        assert entry.num_bytes > 4 * NUM_FLOATS
    assert [entry.position for entry in store.entries()] == [at(1, 0, 30), at(1, 0, 4), at(1), at(0, 9, 5)]
    found = store.newest_good()
    assert (found.entry, found.damaged) == (store.entries()[0], ())
    assert found.snapshot is not None
    assert found.snapshot.position == at(1, 0, 30)
    assert torch.equal(found.snapshot.tensors[MODEL + "weight"], torch.full((NUM_FLOATS,), 30.0))
    assert open_checkpoint(location.join(at(1).name))[0].position == at(1)
    assert is_checkpoint(location.join(at(1).name))
    assert not is_checkpoint(location)


def test_a_runs_snapshot_comes_back(location: Location) -> None:
    snapshot = make_snapshot()
    store = CheckpointStore(location)
    store.save(snapshot)
    found = store.newest_good().snapshot
    assert found is not None
    assert snapshot_bits(found) == snapshot_bits(snapshot)


def test_one_at_the_same_position_is_replaced(location: Location) -> None:
    store = CheckpointStore(location)
    for value in (1.0, 2.0):
        store.save(simple(at(1), value))
    assert names(store) == [at(1).name]
    assert value_of(store) == 2.0


def test_what_need_not_stay_is_deleted(location: Location) -> None:
    store = CheckpointStore(location, keep_last=2)
    for epoch in range(6):
        store.save(simple(at(1, epoch), num=10), is_stage_end=epoch == 1, top1=50.0 - epoch)
        store.prune(at(1, epoch))
    assert [entry.position.epoch for entry in store.entries()] == [5, 4, 1, 0]
    assert sorted(names(store)) == [at(1, epoch).name for epoch in (0, 1, 4, 5)]
    assert store.discard_after(at(1, 1)) == [at(1, 4), at(1, 5)]
    assert sorted(names(store)) == [at(1, 0).name, at(1, 1).name]


def test_the_one_just_written_stays_whatever_lies_there(location: Location) -> None:
    store = CheckpointStore(location, keep_last=1)
    store.save(simple(at(2, 0), num=10))  # of a course that was given up
    store.save(simple(at(1, 0), num=10))
    assert store.prune(at(1, 0)) == []
    assert store.positions() == [at(2), at(1)]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}
FILES = ["manifest.json", "facts.json", "tensors.safetensors"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_named_and_the_one_before_is_used(tmp_path: Path, file: str, damage: str) -> None:
    store = CheckpointStore(locate(str(tmp_path)), keep_last=1)
    for step in (1, 2):
        store.save(simple(at(1, 0, step), step))
    DAMAGE[damage](tmp_path / at(1, 0, 2).name / file)
    found = store.newest_good()
    assert found.entry is not None
    assert found.entry.position == at(1, 0, 1)
    assert [position for position, _ in found.damaged] == [at(1, 0, 2)]
    assert file in found.damaged[0].reason
    assert "\n" not in found.damaged[0].reason
    with pytest.raises(DamagedError, match=file):
        store.load(at(1, 0, 2))
    # Going on: the damaged one is in nobody's way, and is replaced or deleted.
    store.save(simple(at(1, 0, 2), 7.0))
    store.prune(at(1, 0, 2))
    assert value_of(store) == 7.0
    assert names(store) == [at(1, 0, 2).name]


def test_damaged_ones_are_deleted_like_others(tmp_path: Path) -> None:
    store = CheckpointStore(locate(str(tmp_path)), keep_last=1)
    for step in (1, 2):
        store.save(simple(at(1, 0, step)))
    (tmp_path / at(1, 0, 1).name / "manifest.json").write_text("{")
    assert store.prune(at(1, 0, 2)) == [at(1, 0, 1)]


def test_none_whole(tmp_path: Path) -> None:
    store = CheckpointStore(locate(str(tmp_path)))
    for step in (1, 2):
        store.save(simple(at(1, 0, step)))
        flip(tmp_path / at(1, 0, step).name / "tensors.safetensors")
    found = store.newest_good()
    assert (found.entry, found.snapshot) == (None, None)
    assert [position.step for position, _ in found.damaged] == [2, 1]


def test_another_ones_name_and_another_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(locate(str(tmp_path)))
    store.save(simple(at(1)))
    (tmp_path / at(1).name).rename(tmp_path / at(2).name)
    with pytest.raises(DamagedError, match=r"taken at checkpoint-01-.* is named checkpoint-02-"):
        store.load(at(2))
    assert open_checkpoint(locate(str(tmp_path / at(2).name)))[0].position == at(1)
    monkeypatch.setattr("inq_ray.training.checkpoint.files.FORMAT_VERSION", 2)
    store.save(simple(at(3)))
    monkeypatch.undo()
    with pytest.raises(DamagedError, match="format version is 2, but this program reads 1"):
        store.load(at(3))


def write_for_ever(folder: str) -> None:
    store = CheckpointStore(locate(folder), keep_last=2)
    for step in range(1, 1_000_000):
        position = at(1, 0, step)
        store.save(simple(position, step))
        store.prune(position)


def test_a_writer_killed_at_any_moment_leaves_whole_ones(tmp_path: Path) -> None:
    store = CheckpointStore(locate(str(tmp_path)), keep_last=2)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", __name__])
    newest = 0.0
    for num_written, milliseconds in ((1, 15), (1, 25), (2, 40)):
        process = context.Process(target=write_for_ever, args=(str(tmp_path),), daemon=True)
        process.start()
        deadline = time.monotonic() + 300
        while not any(each.step >= num_written for each in store.positions()):
            assert time.monotonic() < deadline, "it writes no checkpoints"
            time.sleep(0.001)
        time.sleep(milliseconds / 1000)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        store.clean()
        found = store.newest_good()
        assert found.damaged == ()
        assert found.entry is not None
        newest = max(newest, networks.value_of(found.snapshot))
        assert len(names(store)) <= 3
        assert all(not name.startswith(".") for name in names(store))
        shutil.rmtree(tmp_path)
    assert newest > 1


def check_one_is_whole(store: CheckpointStore, is_end: bool) -> None:
    """The new one where the writer came to its end, else the old or the new one."""
    store.clean()
    found = store.newest_good()
    assert found.snapshot is not None
    assert found.damaged == ()
    assert networks.value_of(found.snapshot) in ((2.0,) if is_end else (1.0, 2.0))


@pytest.mark.parametrize("is_replaced", [True, False])
def test_killed_between_any_two_steps_on_disk(tmp_path: Path, is_replaced: bool) -> None:
    """The only whole one is never lost, half ones are never taken for whole, and nothing is left lying about."""
    new = at(1, 0, 1 if is_replaced else 2)
    store = CheckpointStore(locate(str(tmp_path / "run")), keep_last=1)
    patched: list[pytest.MonkeyPatch] = []

    def patch(killer: Killer) -> None:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        store.save(simple(at(1, 0, 1), 1.0, num=10))
        patched.append(pytest.MonkeyPatch())
        for owner, name in ((folder_module, "_write_file"), (folder_module, "sync"), (Path, "rename")):
            patched[-1].setattr(owner, name, killer.wrap(getattr(owner, name)))

    def work() -> None:
        store.save(simple(new, 2.0, num=10))
        store.prune(new)

    ends = 0
    for is_end in Killer.each(patch, work):
        patched[-1].undo()
        check_one_is_whole(store, is_end)
        assert all(not name.startswith(".") for name in names(store))
        ends += is_end
    assert ends == 2
    assert len(patched) > 12


def test_killed_between_any_two_steps_on_s3(on_s3: Location) -> None:
    store = CheckpointStore(on_s3, keep_last=1)
    patched: list[pytest.MonkeyPatch] = []

    def patch(killer: Killer) -> None:
        for position in store.positions():
            store_module._delete_there(store.location.join(position.name))
        store.save(simple(at(1, 0, 1), 1.0, num=10))
        patched.append(pytest.MonkeyPatch())
        patched[-1].setattr(store_module, "retry", killer.wrap(store_module.retry))

    def work() -> None:
        store.save(simple(at(1, 0, 2), 2.0, num=10))
        store.prune(at(1, 0, 2))

    for is_end in Killer.each(patch, work):
        patched[-1].undo()
        check_one_is_whole(store, is_end)
    assert len(patched) > 8


def test_leftovers_of_killed_writers_are_settled(tmp_path: Path) -> None:
    store = CheckpointStore(locate(str(tmp_path)))
    for step in (1, 2, 3, 4):
        store.save(simple(at(1, 0, step), step))
    (tmp_path / at(1, 0, 4).name).rename(tmp_path / f".{at(1, 0, 4).name}.host-1-2.partial")  # whole, not yet named
    shutil.copytree(tmp_path / at(1, 0, 2).name, tmp_path / f".{at(1, 0, 2).name}.host-1-3.partial")  # named since
    (tmp_path / at(1, 0, 3).name).rename(tmp_path / f".{at(1, 0, 3).name}.host-1-4.partial")
    flip(tmp_path / f".{at(1, 0, 3).name}.host-1-4.partial" / "tensors.safetensors")
    (tmp_path / at(1, 0, 1).name).rename(tmp_path / f".{at(1, 0, 1).name}.host-1-5.deleted")
    (tmp_path / ".other").mkdir()
    assert [position.step for position in store.positions()] == [2]
    assert len(store.clean()) == 4
    assert sorted(names(store)) == [".other", at(1, 0, 2).name, at(1, 0, 4).name]
    assert value_of(store) == 4.0


def test_what_has_no_manifest_on_s3_is_no_checkpoint(on_s3: Location) -> None:
    store = CheckpointStore(on_s3)
    for step in (1, 2):
        store.save(simple(at(1, 0, step), step))
    on_s3.fs.delete_file(on_s3.join(at(1, 0, 2).name).join("manifest.json").path)
    assert value_of(store) == 1.0
    assert store.clean() == [at(1, 0, 2).name]
    assert names(store) == [at(1, 0, 1).name]


def test_flipped_on_s3(on_s3: Location) -> None:
    store = CheckpointStore(on_s3)
    for step in (1, 2):
        store.save(simple(at(1, 0, step), step))
    file = on_s3.join(at(1, 0, 2).name).join("facts.json")
    with on_s3.fs.open_output_stream(file.path) as stream:
        stream.write(file.read().replace(b"2.0", b"3.0"))
    found = store.newest_good()
    assert found.entry is not None
    assert found.entry.position.step == 1
    assert "facts.json is damaged" in found.damaged[0].reason


def test_a_storage_that_fails_damages_nothing(on_s3: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a run would go on from an older one, or start anew, because of a network."""
    store = CheckpointStore(on_s3)
    store.save(simple(at(1)))
    monkeypatch.setattr(retry_module, "NUM_TRIES", 2)
    monkeypatch.setattr(retry_module, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for call in (store.newest_good, store.entries, store.clean, lambda: store.save(simple(at(2)))):
        with pytest.raises(ValueError, match="failed 2 times") as caught:
            call()
        assert not isinstance(caught.value, DamagedError)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")


def test_a_storage_that_fails_after_the_digest_damages_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(locate(str(tmp_path)))
    store.save(make_snapshot(at(1)))
    store.save(make_snapshot(at(2)))

    def fail(blocks: FileBlocks, index: int) -> torch.Tensor:
        raise StorageError(f"cannot read block {index} of {blocks.num_bytes} bytes: failed 6 times in 20 s")

    monkeypatch.setattr(FileBlocks, "read", fail)
    with pytest.raises(StorageError, match="failed 6 times") as caught:
        store.newest_good()
    assert not isinstance(caught.value, DamagedError)


@pytest.mark.parametrize("has_space", [True, False])
def test_a_checkpoint_on_s3_is_downloaded_once(
    on_s3: Location, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_space: bool
) -> None:
    """Without space for a copy it is downloaded again, and restored all the same."""
    if not has_space:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    store, read_at = CheckpointStore(on_s3), Location.read_at
    asked: list[int] = []

    def counted(location: Location, start: int, num_bytes: int) -> bytes:
        asked.append(num_bytes)
        return read_at(location, start, num_bytes)

    monkeypatch.setattr(Location, "read_at", counted)
    store.save(make_snapshot(at(1)))
    num_bytes = on_s3.join(at(1).name).join("tensors.safetensors").info().size
    assert snapshot_bits(store.load(at(1))[1]) == snapshot_bits(make_snapshot(at(1)))
    assert (sum(asked) == num_bytes) == has_space


def test_a_full_disk_for_temporary_files_changes_nothing(on_s3: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bool] = []
    append = files_module._appended

    def appended(file: FileIO, data: bytes) -> bool:
        written.append(append(file, data))
        return written[-1]

    monkeypatch.setattr(files_module, "_appended", appended)
    store = CheckpointStore(on_s3)
    store.save(simple(at(1), 3.0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * NUM_FLOATS, hard))  # half of the file
    try:
        assert value_of(store) == 3.0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert written == [False]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk_at(tmp_path / "disk", megabytes=1) as disk:
        yield disk


def test_disk_full(small_disk: Path) -> None:
    store = CheckpointStore(locate(str(small_disk)), keep_last=9)
    for step in (1, 2, 3, 4):
        store.save(simple(at(1, 0, step), step))
    before = sorted(names(store))
    for step in (5, 4):  # a new one, and one that would be replaced
        with pytest.raises(ValueError, match=rf"cannot write .*{at(1, 0, step).name}: No space left on device"):
            store.save(simple(at(1, 0, step), 9.0, num=2 * NUM_FLOATS))
        assert sorted(names(store)) == before  # nothing half, nothing hidden
        assert value_of(store) == 4.0
    store.discard_after(at(1, 0, 2))
    store.save(simple(at(1, 0, 5), 5.0))
    assert value_of(store) == 5.0


def test_read_only_disk(small_disk: Path) -> None:
    store = CheckpointStore(locate(str(small_disk)), keep_last=1)
    for step in (1, 2):
        store.save(simple(at(1, 0, step), step))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ValueError, match=r"cannot write .*: Read-only file system"):
        store.save(simple(at(1, 0, 3)))
    with pytest.raises(ValueError, match=r"cannot delete .*: Read-only file system"):
        store.prune(at(1, 0, 2))
    assert value_of(store) == 2.0


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """A quota that every user meets: no mount is needed."""
    store = CheckpointStore(locate(str(tmp_path)))
    store.save(simple(at(1), 1.0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * NUM_FLOATS // 2, hard))
    try:
        with pytest.raises(ValueError, match=r"cannot write .*: File too large"):
            store.save(simple(at(2)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(store) == [at(1).name]
    assert value_of(store) == 1.0


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = CheckpointStore(locate(str(tmp_path / "file" / "checkpoints")))
    with pytest.raises(ValueError, match=r"cannot write .*: (Not a directory|File exists)"):
        store.save(simple(at(1)))
    with pytest.raises(ValueError, match="at least 1 checkpoint must be kept, got 0"):
        CheckpointStore(locate(str(tmp_path)), keep_last=0)


def test_a_file_is_read_in_blocks_and_each_is_compared_again(tmp_path: Path) -> None:
    data, path = bytes(range(256)) * 3, tmp_path / "x.safetensors"
    path.write_bytes(data)
    digest = FileDigest(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    blocks = FileBlocks(locate(str(path)), digest, block_bytes=200)
    assert b"".join(tensor_to_bytes(blocks.read(index)) for index in range(4)) == data
    path.write_bytes(data[:-1] + b"x")
    assert tensor_to_bytes(blocks.read(2)) == data[400:600]
    with pytest.raises(DamagedError, match=r"x\.safetensors has changed since it was checked"):
        blocks.read(3)
    for wrong, line in ((data[:-1], "has 767 bytes of 768"), (b"x" + data[1:], "SHA-256 differs")):
        path.write_bytes(wrong)
        with pytest.raises(DamagedError, match=rf"^x\.safetensors .*{line}"):
            FileBlocks(locate(str(path)), digest)
    path.unlink()
    with pytest.raises(DamagedError, match=r"x\.safetensors is missing"):
        blocks.read(0)
