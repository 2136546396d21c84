"""Ends of stages that trials share: each stored once, by its key, and checked by its digests when it is used.

An end is a checkpoint, as a run takes it at a stage's end anyway. A trial that begins with it gets it as its own last
checkpoint, with its own configuration in it, and goes on from there as it would after an interruption: that is all that
reuse needs of a run.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import NamedTuple

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


class StageEnd(NamedTuple):
    """What is stored.

    Attributes:
        snapshot: expanded.
        top1: in percent, measured there.
    """

    snapshot: Snapshot
    top1: float | None


class StageStore:
    """Stage ends in a folder that every node sees; for each key there is one writer.

    Args:
        folder: there or not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keys(self) -> set[str]:
        """Keys of what is stored; what a killed writer has left is not."""
        if not self.folder.is_dir():
            return set()
        return {path.name for path in self.folder.iterdir() if path.name in self}

    def __contains__(self, key: str) -> bool:
        return bool(self._store(key).entries())

    def put(self, key: str, end: StageEnd) -> None:
        """Stores an end.

        Raises:
            ValueError: the storage fails, as a full disk does; what was written of it is gone.
        """
        facts = dataclasses.replace(end.snapshot.facts, stage_key=key)
        self._store(key).save(Snapshot(end.snapshot.tensors, facts), is_stage_end=True, top1=end.top1)

    def get(self, key: str) -> StageEnd:
        """Reads an end, all of it.

        Raises:
            DamagedError: it is not what was stored, or not there.
            ValueError: the storage fails.
        """
        store = self._store(key)
        places = store.positions()
        if len(places) != 1:
            raise DamagedError(f"{len(places)} checkpoints are there, not one")
        entry, snapshot = store.load(places[0])
        if snapshot.facts.stage_key != key:
            raise DamagedError("it is of another key")
        return StageEnd(Snapshot(snapshot.tensors, dataclasses.replace(snapshot.facts, stage_key=None)), entry.top1)

    def delete(self, key: str) -> None:
        """Deletes an end; none is there afterwards, whole or not."""
        aside = self.folder / f".{key}.deleted"
        if (self.folder / key).is_dir():
            shutil.rmtree(aside, ignore_errors=True)
            (self.folder / key).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _store(self, key: str) -> CheckpointStore:
        return CheckpointStore(locate(str(self.folder / key)))


def end_of(config: RunConfig, stage: int) -> StageEnd | None:
    """A stage's end as a run has left it among its checkpoints; None where it is not there yet.

    Raises:
        DamagedError: it is not what was written.
        ValueError: the storage fails, or a run of other options or workers than the configuration says made it.
    """
    store, place = store_of(config), TrainingPosition(stage=stage, epoch=stage_end(config, stage), step=0)
    if not is_checkpoint(store.location.join(place.name)):
        return None
    entry, snapshot = store.load(place)
    check_own(snapshot, config, None, store.location.name)
    sizes = snapshot.facts.world_sizes or [snapshot.facts.world_size]
    if set(sizes) != {config.cluster.num_workers}:
        raise ValueError(f"it was trained by {', then '.join(map(str, sizes))} workers")
    return StageEnd(snapshot, entry.top1)


def seed_from_stage(end: StageEnd, config: RunConfig) -> None:
    """Makes a stage's end the last checkpoint of a new run, which then goes on from there.

    Args:
        end: of a stage that the run would come to as well, see :mod:`inq_ray.sweep.reuse.keys`.
        config: of the run.

    Raises:
        ValueError: the run exists, or cannot be written.
    """
    RunFolder.create(config)
    discard_checkpoints(config)  # of an earlier run of that name, where they lie elsewhere
    store_of(config).save(_adapted(end.snapshot, config), is_stage_end=True, top1=end.top1)


def discard_checkpoints(config: RunConfig) -> None:
    """Delete the checkpoints of a run.

    Raises:
        ValueError: The storage fails.
    """
    store_of(config).discard_after(TrainingPosition(stage=0, epoch=0, step=0))


def _adapted(snapshot: Snapshot, config: RunConfig) -> Snapshot:
    """The snapshot as this configuration's run would have taken it: only what comes later differs."""
    # No time was lost since it was taken: this run has not begun.
    facts, portions = snapshot.facts, config.quantization.iterative_steps
    inq = facts.inq
    if inq is not None:
        assert inq.portions[: inq.stage] == portions[: inq.stage], "the stages until then are the same"
        inq = dataclasses.replace(inq, portions=portions)
    return Snapshot(snapshot.tensors, dataclasses.replace(facts, config=config, inq=inq, time=None))
