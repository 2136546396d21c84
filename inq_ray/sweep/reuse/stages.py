"""Stage ends that trials share: each is stored once, by its key, and its digests are checked when it is used.

A stage end is a checkpoint, which runs take at a stage's end anyway. A trial that starts from it gets it as its own
last checkpoint, with its own configuration, and continues as after an interruption, so the run itself needs no support
for reuse.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import NamedTuple

from inq_ray.files.shown import counted, shown
from inq_ray.files.whole import write_text
from inq_ray.storage.address import locate
from inq_ray.sweep.reuse.keys import stage_end
from inq_ray.training.checkpoint.checkpoints import store_of
from inq_ray.training.checkpoint.files import DamagedError, is_checkpoint
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.resume import check_own
from inq_ray.training.checkpoint.snapshot import Snapshot
from inq_ray.training.checkpoint.store import CheckpointStore
from inq_ray.training.config import RunConfig
from inq_ray.training.run_folder import RunFolder

# File in a run's folder: the stage end that the run started from.
REUSED = "reused.json"


class StageEnd(NamedTuple):
    """A stored stage end.

    Attributes:
        snapshot: Expanded snapshot.
        top1: Accuracy there, in percent.
    """

    snapshot: Snapshot
    top1: float | None


class StageStore:
    """Stage ends in a shared folder; each key has one writer.

    Args:
        folder: The folder, which need not exist. Its parent does, unless its storage is unavailable.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keys(self) -> set[str]:
        """Return the keys of the stored ends, without leftovers of killed writers."""
        if not self.folder.is_dir():
            return set()
        return {path.name for path in self.folder.iterdir() if path.name in self}

    def __contains__(self, key: str) -> bool:
        return bool(self._store(key).entries())

    def put(self, key: str, end: StageEnd) -> None:
        """Store an end.

        Raises:
            ValueError: The storage fails, such as a full disk; partial files are removed.
        """
        facts = dataclasses.replace(end.snapshot.facts, stage_key=key)
        self._store(key).save(Snapshot(end.snapshot.tensors, facts), is_stage_end=True, top1=end.top1)

    def get(self, key: str) -> StageEnd:
        """Read an end completely.

        Raises:
            DamagedError: It is missing, or differs from what was stored.
            ValueError: The storage fails.
        """
        store = self._store(key)
        places = store.positions()
        if len(places) != 1:
            raise DamagedError(f"there are {counted(len(places), 'checkpoint')} instead of one")
        entry, snapshot = store.load(places[0])
        if snapshot.facts.stage_key != key:
            raise DamagedError("it has another key")
        return StageEnd(Snapshot(snapshot.tensors, dataclasses.replace(snapshot.facts, stage_key=None)), entry.top1)

    def delete(self, key: str) -> None:
        """Delete an end, valid or damaged, if it exists."""
        aside = self.folder / f".{key}.deleted"
        if (self.folder / key).is_dir():
            shutil.rmtree(aside, ignore_errors=True)
            (self.folder / key).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def check_there(self) -> None:
        """Check that the storage is mounted: otherwise its path would be created again on the local disk.

        Raises:
            ConnectionError: The storage is missing.
        """
        if not self.folder.parent.is_dir():
            raise ConnectionError(f"the storage of {shown(self.folder.parent)} is missing")

    def _store(self, key: str) -> CheckpointStore:
        return CheckpointStore(locate(str(self.folder / key)), check_writer=self.check_there)


def end_of(config: RunConfig, stage: int) -> StageEnd | None:
    """Return a stage's end from a run's checkpoints; None if it does not exist yet.

    Raises:
        DamagedError: It differs from what was written.
        ValueError: The storage fails, or the run had other options or another number of workers.
    """
    store, place = store_of(config), TrainingPosition(stage=stage, epoch=stage_end(config, stage), step=0)
    if not is_checkpoint(store.location.join(place.name)):
        return None
    entry, snapshot = store.load(place)
    check_own(snapshot, config, None, store.location.name)
    sizes = snapshot.facts.world_sizes or [snapshot.facts.world_size]
    if set(sizes) != {config.cluster.num_workers}:
        raise ValueError(f"it was trained with {', then '.join(counted(size, 'worker') for size in sizes)}")
    return StageEnd(snapshot, entry.top1)


def seed_from_stage(end: StageEnd, config: RunConfig) -> None:
    """Make a stage's end the last checkpoint of a new run, which then continues from there.

    Args:
        end: End of a stage that the run would reach as well, see :mod:`inq_ray.sweep.reuse.keys`.
        config: Configuration of the run.

    Raises:
        ValueError: The run exists, or cannot be written.
        OSError: Its folder cannot be written.
    """
    folder = RunFolder.create(config)
    discard_checkpoints(config)  # of an earlier run of that name, if they are elsewhere
    # Before the checkpoint, with which the run continues after a kill: it would count these stages as its own.
    write_text(folder.path / REUSED, json.dumps({"stage": end.snapshot.position.stage}) + "\n")
    store_of(config).save(_adapted(end.snapshot, config), is_stage_end=True, top1=end.top1)


def discard_checkpoints(config: RunConfig) -> None:
    """Delete the checkpoints of a run.

    Raises:
        ValueError: The storage fails.
    """
    store_of(config).discard_after(TrainingPosition(stage=0, epoch=0, step=0))


def _adapted(snapshot: Snapshot, config: RunConfig) -> Snapshot:
    """Return the snapshot as this configuration's run would have taken it: only later stages differ."""
    # No time was lost since it was taken, because this run has not begun.
    facts, portions = snapshot.facts, config.quantization.iterative_steps
    inq = facts.inq
    if inq is not None:
        assert inq.portions[: inq.stage] == portions[: inq.stage], "earlier stages are the same"
        inq = dataclasses.replace(inq, portions=portions)
    return Snapshot(snapshot.tensors, dataclasses.replace(facts, config=config, inq=inq, time=None))
