"""Writing of checkpoints during training: a copy is taken, and a thread packs and writes it."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.retention import Entry
from inq_ray.training.checkpoint.snapshot import Snapshot
from inq_ray.training.checkpoint.store import CheckpointStore

# How long a mandatory checkpoint waits for the previous one; longer than the retries of one storage call.
WAIT_SECONDS = 300.0


class Written(NamedTuple):
    """A complete checkpoint.

    Attributes:
        entry: Its entry.
        seconds: Time from the copy to completion, in the thread.
    """

    entry: Entry
    seconds: float


class CheckpointWriter:
    """Writes snapshots into a store, one at a time.

    While one is being written, another is postponed (the next step may ask again), or waits if it is mandatory. So
    memory holds one copy, whose buffers are reused (pinned ones for tensors on a GPU), and slow storage makes
    checkpoints less frequent but never slows training.

    If a checkpoint cannot be written and an older one exists, the run continues: there is one warning, and another line
    once writing succeeds again. If none exists, the next call raises.

    The store never has more than the kept checkpoints and the one being written: leftovers of a killed writer, a failed
    write or a failed deletion are removed before the next one is written; if this fails, it is not written.

    Args:
        store: Store to write to; this process is its only writer.
        tell: Called with a line of warning, by the thread.
        has_older: Whether a valid checkpoint exists already, here or elsewhere.
        newest: Position of the existing checkpoint in this store; None = there is none.
    """

    def __init__(
        self,
        store: CheckpointStore,
        tell: Callable[[str], None],
        *,
        has_older: bool = False,
        newest: TrainingPosition | None = None,
    ) -> None:
        self.store = store
        self.last: Written | None = None
        self._tell = tell
        self._has_older = has_older or newest is not None
        self._newest = newest
        self._is_tidy = False
        self._failed_in_a_row = 0
        self._buffers: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def write(
        self,
        snapshot: Snapshot,
        *,
        is_stage_end: bool = False,
        top1: float | None = None,
        wait_seconds: float = 0.0,
    ) -> bool:
        """Copy a snapshot and return; a thread writes it, and deletes old checkpoints.

        On a GPU the copy is queued on the current stream: later work on that stream, such as the next step, may change
        the tensors; other streams may not, before :meth:`wait` or the next call.

        Args:
            snapshot: Snapshot from :func:`inq_ray.training.checkpoint.snapshot.take`.
            is_stage_end: Whether its stage ends there.
            top1: Accuracy in percent measured there.
            wait_seconds: How long to wait while another is being written; WAIT_SECONDS for mandatory checkpoints.

        Returns:
            False if it was postponed because another is still being written.

        Raises:
            ValueError: An earlier one could not be written, and no other exists.
        """
        if not self.wait(wait_seconds):
            if wait_seconds > 0:
                self._tell(
                    f"{snapshot.position.name} is skipped: the one before is not written after {wait_seconds:g} s"
                )
            return False
        began = time.perf_counter()
        copied = Snapshot(self._copied(snapshot.tensors), snapshot.facts)
        is_on_gpu = any(tensor.is_cuda for tensor in snapshot.tensors.values())
        event = torch.cuda.current_stream().record_event() if is_on_gpu else None

        def work() -> None:
            try:
                if event is not None:
                    event.synchronize()
                self._save(copied, is_stage_end, top1, began)
            except BaseException as error:  # noqa: BLE001, raised again by the next call, in the training thread
                self._error = error

        # A daemon, so that a hanging storage does not keep the process alive.
        self._thread = threading.Thread(target=work, name="checkpoint", daemon=True)
        self._thread.start()
        return True

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is being written; return whether this is so.

        Raises:
            ValueError: The last one could not be written, and no other exists.
        """
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                return False
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return True

    def close(self, seconds: float = WAIT_SECONDS) -> bool:
        """Wait for the last checkpoint, at most ``seconds``, and release the buffers.

        Returns:
            Whether it is complete; if not, a line was reported.

        Raises:
            ValueError: It could not be written, and no other exists.
        """
        done = self.wait(seconds)
        if done:
            self._buffers = {}
        else:
            self._tell(f"the last checkpoint is still not written after {seconds:g} s: giving up")
        return done

    def _copied(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy into reused buffers, in each tensor's own memory format, which is fastest."""
        buffers = {}
        for name, tensor in tensors.items():
            buffer = self._buffers.get(name)
            if buffer is None or not _is_alike(buffer, tensor):
                buffer = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            buffers[name] = buffer.copy_(tensor, non_blocking=True)
        self._buffers = buffers
        return buffers

    def _save(self, snapshot: Snapshot, is_stage_end: bool, top1: float | None, began: float) -> None:
        try:
            self._tidy()
            self._is_tidy = False  # until it is written, and old ones are deleted
            entry = self.store.save(snapshot, is_stage_end=is_stage_end, top1=top1)
        except ValueError as error:
            self._failed(str(error))
            return
        self.last = Written(entry, time.perf_counter() - began)
        self._has_older, self._newest = True, entry.position
        if self._failed_in_a_row:
            self._tell(f"checkpoints are written again: {entry.position.name}; {self._failed_in_a_row} failed before")
            self._failed_in_a_row = 0
        try:
            self.store.prune(entry.position)
            self._is_tidy = True
        except ValueError as error:
            self._tell(f"an old checkpoint cannot be deleted, and no new one is written before it is: {error}")

    def _tidy(self) -> None:
        if self._is_tidy:
            return
        self.store.clean()
        if self._newest is not None:
            self.store.prune(self._newest)

    def _failed(self, reason: str) -> None:
        if not self._has_older:
            raise ValueError(f"the first checkpoint failed: {reason}")
        self._failed_in_a_row += 1
        if self._failed_in_a_row == 1:
            self._tell(f"a checkpoint failed, training continues and the previous one stays: {reason}")


def _is_alike(buffer: Tensor, tensor: Tensor) -> bool:
    return (buffer.shape, buffer.dtype, buffer.is_pinned()) == (tensor.shape, tensor.dtype, tensor.is_cuda) and (
        buffer.stride() == tensor.stride()
    )
