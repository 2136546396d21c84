"""Checkpoints of a run in training: loads the newest, decides when one is due, and lets rank 0 write it."""

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
    """Return the store of a run's checkpoints: in its own folder, or in one of its name at --checkpoint-path.

    Args:
        config: Configuration of the run.
        check_writer: As for :class:`CheckpointStore`.

    Raises:
        ValueError: The address is not valid, or the folder is a link, through which files elsewhere would be deleted.
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
            f"{location.name} is a link, and checkpoints are deleted there: pass its target as --checkpoint-path"
        )
    return CheckpointStore(location, keep_last=output.keep_checkpoints, check_writer=check_writer)


class Checkpoints:
    """Checkpoint manager of one run. All methods are collective: call them on every rank.

    Args:
        config: Configuration of the run.
        fingerprint: Fingerprint of its data.
        note: Called on rank 0 with the kind of an incident and a line.
        is_asked_to_stop: Returns whether this rank was asked to stop.
        check_writer: Refuses to write, see :meth:`inq_ray.training.run_folder.RunFolder.check_writer`.

    Attributes:
        clock: Clock that decides when the next one is due.
        last: Position of the last one taken or loaded; None = there was none.
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
        """Return the newest valid checkpoint of the run, or the one of --resume; None = start from the beginning.

        Args:
            not_after: Later ones are discarded; None = none is.

        Raises:
            ValueError: The storage fails, the checkpoint of --resume cannot be read, or it has another configuration;
                raised on every rank.
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
        """Read on rank 0, and clean up: it is the only writer."""
        store = store_of(self._config, self._check_writer)
        store.clean()
        if not_after is not None:
            store.discard_after(not_after)
        found = store.newest_good()
        for damaged in found.damaged:
            self._note("checkpoint_damaged", f"{damaged.position.name} is damaged and ignored: {damaged.reason}")
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
        """Copy the run's state and have it written in the background.

        Args:
            parts: The run's objects.
            history: What the run remembers.
            sums: float64 [ranks, 3], of the current epoch, see :func:`take`.
            position: Current position.
            is_stage_end: Whether the stage ends here.
            top1: Accuracy in percent measured here.
            must_be_written: Whether to wait for the previous one; otherwise this one is skipped while that is being
                written.

        Returns:
            On rank 0, whether it is being written; on others True.

        Raises:
            ValueError: An earlier one could not be written, and no other exists.
        """
        if self._writer is None:
            self.last = position
            return True
        snapshot = take(parts, history, sums, position=position, config=self._config, fingerprint=self._fingerprint)
        # The other ranks wait in a collective meanwhile, which has a timeout too.
        most_seconds = min(WAIT_SECONDS, self._config.cluster.collective_seconds / 2)
        wait_seconds = most_seconds if must_be_written else 0.0
        is_taken = self._writer.write(snapshot, is_stage_end=is_stage_end, top1=top1, wait_seconds=wait_seconds)
        if is_taken:
            self.last = position
        return is_taken

    def close(self) -> None:
        """Wait for the last one to be written, with a time limit."""
        if self._writer is not None:
            self._writer.close()
