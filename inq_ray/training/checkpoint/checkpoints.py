"""The checkpoints of a run while it trains: loads what there is, knows when one is due, and has rank 0 write it."""

import functools
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from inq_ray.distributed.wire import rank
from inq_ray.storage.address import locate
from inq_ray.training.checkpoint.broadcast import broadcast_snapshot
from inq_ray.training.checkpoint.clock import CheckpointClock
from inq_ray.training.checkpoint.facts import History
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.resume import check_own, look_at
from inq_ray.training.checkpoint.snapshot import Parts, Snapshot, take
from inq_ray.training.checkpoint.store import CheckpointStore
from inq_ray.training.checkpoint.writer import WAIT_SECONDS, CheckpointWriter
from inq_ray.training.config import RunConfig
from inq_ray.training.config.output import AUTO, NEVER
from inq_ray.training.report.incident import Kind


def store_of(config: RunConfig, check_writer: Callable[[], None] = lambda: None) -> CheckpointStore:
    """Where a run's checkpoints lie: in its own folder, or in one of its name at --checkpoint-path.

    Args:
        config: of the run.
        check_writer: as of :class:`CheckpointStore`.

    Raises:
        ValueError: the address is none, or the folder is a link, through which checkpoints elsewhere would be deleted.
    """
    output = config.output
    assert output.name is not None
    if output.checkpoint_path is None:
        folder = Path(output.storage_path).expanduser().absolute() / output.name / "checkpoints"
        location = locate(str(folder))
    else:
        location = locate(output.checkpoint_path, "--checkpoint-path").join(output.name)
    if location.is_local and Path(location.path).is_symlink():
        raise ValueError(
            f"{location.name} is a link, and checkpoints are deleted there: name its target by --checkpoint-path"
        )
    return CheckpointStore(location, keep_last=output.keep_checkpoints, check_writer=check_writer)


class Checkpoints:
    """Of one run, on one rank; every rank calls everything.

    Args:
        config: of the run.
        fingerprint: of its data.
        note: takes the kind of an incident and a line; called on rank 0.
        is_asked_to_stop: whether this rank has been.
        check_writer: refuses to write, see :meth:`inq_ray.training.run_folder.RunFolder.check_writer`.

    Attributes:
        clock: when the next one is due.
        last: where the last one was taken or loaded; None = there was none.
    """

    def __init__(
        self,
        config: RunConfig,
        fingerprint: str,
        note: Callable[[Kind, str], None],
        is_asked_to_stop: Callable[[], bool],
        check_writer: Callable[[], None] = lambda: None,
    ) -> None:
        self.clock = CheckpointClock(config.output.checkpoint_every, is_asked_to_stop)
        self.last: TrainingPosition | None = None
        self._config = config
        self._fingerprint = fingerprint
        self._note = note
        self._check_writer = check_writer
        self._writer: CheckpointWriter | None = None

    def load(self, not_after: TrainingPosition | None = None) -> Snapshot | None:
        """The newest whole checkpoint of the run, or the one that --resume names; None = it starts from its beginning.

        Args:
            not_after: later ones are given up; None = none is.

        Raises:
            ValueError: on every rank; the storage fails, or the one that is named cannot be read, or it is of another
                configuration.
        """
        snapshot, error = None, None
        if rank() == 0:
            try:
                snapshot = self._open(not_after)
            except ValueError as failure:
                error = str(failure)
        shared = broadcast_snapshot(snapshot, error)
        self.last = None if shared is None else shared.position
        return shared

    def _open(self, not_after: TrainingPosition | None) -> Snapshot | None:
        """Reads on rank 0, and tidies: it is the only writer."""
        store = store_of(self._config, self._check_writer)
        store.clean()
        if not_after is not None:
            store.discard_after(not_after)
        found = store.newest_good()
        for damaged in found.damaged:
            self._note("checkpoint_damaged", f"{damaged.position.name} is damaged and left out: {damaged.reason}")
        resume = self._config.output.resume
        snapshot = found.snapshot
        if snapshot is None and resume not in (AUTO, NEVER):
            snapshot = look_at(resume).snapshot
        if snapshot is not None:
            check_own(snapshot, self._config, self._fingerprint, store.location.name)
            store.discard_after(snapshot.position)
        tell = functools.partial(self._note, "checkpoint_failed")
        newest = None if found.entry is None else found.entry.position
        self._writer = CheckpointWriter(store, tell, has_older=snapshot is not None, newest=newest)
        return snapshot

    def save(
        self,
        parts: Parts,
        history: History,
        sums: Tensor,
        position: TrainingPosition,
        *,
        is_stage_end: bool = False,
        top1: float | None = None,
        must_be_written: bool = False,
    ) -> bool:
        """Copies the run's state and lets it be written.

        Args:
            parts: the run's objects.
            history: what it remembers.
            sums: float64 [ranks, 3], of the epoch in which it is, see :func:`take`.
            position: where it is.
            is_stage_end: whether the stage ends here.
            top1: accuracy in percent that was measured here.
            must_be_written: waits for the one before; others are left out where that is not written yet.

        Returns:
            Whether it is being written; other ranks than rank 0, which do not write, say so of all.

        Raises:
            ValueError: an earlier one could not be written, and none stands.
        """
        if self._writer is None:
            self.last = position
            return True
        snapshot = take(parts, history, sums, position=position, config=self._config, fingerprint=self._fingerprint)
        # The other ranks wait in a collective meanwhile, which has a bound too.
        most_seconds = min(WAIT_SECONDS, self._config.cluster.collective_seconds / 2)
        wait_seconds = most_seconds if must_be_written else 0.0
        is_taken = self._writer.write(snapshot, is_stage_end=is_stage_end, top1=top1, wait_seconds=wait_seconds)
        if is_taken:
            self.last = position
        return is_taken

    def close(self) -> None:
        """Waits for the last one to be written, with a bound."""
        if self._writer is not None:
            self._writer.close()
