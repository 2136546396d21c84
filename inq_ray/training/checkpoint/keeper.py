"""The checkpoints of a run while it trains: loads what there is, knows when one is due, and has rank 0 write it."""

from collections.abc import Callable
from pathlib import Path

from inq_ray.data.address import locate
from inq_ray.distributed.replica import rank
from inq_ray.training.checkpoint.clock import CheckpointClock
from inq_ray.training.checkpoint.place import Place
from inq_ray.training.checkpoint.resume import AUTO, NEVER, look_at
from inq_ray.training.checkpoint.share import share_snapshot
from inq_ray.training.checkpoint.snapshot import History, Parts, Snapshot, take
from inq_ray.training.checkpoint.store import CheckpointStore
from inq_ray.training.checkpoint.writer import WAIT_SECONDS, CheckpointWriter
from inq_ray.training.config import RunConfig


def store_of(config: RunConfig) -> CheckpointStore:
    """Where a run's checkpoints lie: in its own folder, or in one of its name at --checkpoint-path.

    Raises:
        ValueError: the address is none.
    """
    output = config.output
    assert output.name is not None
    if output.checkpoint_path is None:
        folder = Path(output.storage_path).expanduser().absolute() / output.name / "checkpoints"
        return CheckpointStore(locate(str(folder)), keep_last=output.keep_checkpoints)
    return CheckpointStore(locate(output.checkpoint_path).join(output.name), keep_last=output.keep_checkpoints)


class Checkpoints:
    """Of one run, on one rank; every rank calls everything.

    Args:
        config: of the run.
        fingerprint: of its data.
        tell: takes a line; called on rank 0.
    """

    def __init__(self, config: RunConfig, fingerprint: str, tell: Callable[[str], None]) -> None:
        self.clock = CheckpointClock(config.output.checkpoint_every)
        self._config = config
        self._fingerprint = fingerprint
        self._tell = tell
        self._writer: CheckpointWriter | None = None

    def load(self, not_after: Place | None = None) -> Snapshot | None:
        """The newest whole checkpoint of the run, or the one that --resume names; None = it starts from its beginning.

        Args:
            not_after: later ones are given up; None = none is.

        Raises:
            ValueError: on every rank; the storage fails, or the one that is named cannot be read.
        """
        snapshot, error = None, None
        if rank() == 0:
            try:
                snapshot = self._open(not_after)
            except ValueError as failure:
                error = str(failure)
        return share_snapshot(snapshot, error)

    def _open(self, not_after: Place | None) -> Snapshot | None:
        """Reads on rank 0, and tidies: it is the only writer."""
        store = store_of(self._config)
        store.clean()
        if not_after is not None:
            store.discard_after(not_after)
        found = store.newest_good()
        for damaged in found.damaged:
            self._tell(f"{damaged.place.name} is damaged and left out: {damaged.reason}")
        resume = self._config.output.resume
        snapshot = found.snapshot
        if snapshot is None and resume not in (AUTO, NEVER):
            snapshot = look_at(resume).snapshot
        if snapshot is not None:
            store.discard_after(snapshot.place)
            self._tell(f"going on from {snapshot.place.name}")
        self._writer = CheckpointWriter(store, self._tell, has_older=found.snapshot is not None)
        return snapshot

    def save(
        self, parts: Parts, history: History, place: Place, *, is_stage_end: bool = False, top1: float | None = None
    ) -> None:
        """Copies the run's state and lets it be written; a stage's ends are waited for, others may be left out.

        Raises:
            ValueError: an earlier one could not be written, and none stands.
        """
        if self._writer is None:
            return
        snapshot = take(parts, history, place=place, config=self._config, fingerprint=self._fingerprint)
        wait_seconds = WAIT_SECONDS if is_stage_end else 0.0
        self._writer.write(snapshot, is_stage_end=is_stage_end, top1=top1, wait_seconds=wait_seconds)

    def close(self) -> None:
        """Waits for the last one to be written, with a bound."""
        if self._writer is not None:
            self._writer.close()
