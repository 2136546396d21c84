"""Writing checkpoints while the training goes on: a copy is taken, and a thread packs and writes it."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.retention import Entry
from inq_ray.training.checkpoint.snapshot import Snapshot
from inq_ray.training.checkpoint.store import CheckpointStore

# How long a checkpoint that has to be written waits for the one before it; longer than the tries of one storage call.
WAIT_SECONDS = 300.0


class Written(NamedTuple):
    """A checkpoint that is complete.

    Attributes:
        entry: in short.
        seconds: from the copy to its end, in the thread.
    """

    entry: Entry
    seconds: float


class CheckpointWriter:
    """Writes snapshots into a store, one at a time.

    While one is being written, another is put off (the next step may ask again) unless it has to be written: then it
    waits. So memory holds one copy, of which the buffers are used again (pinned ones where tensors are on a GPU), and
    slow storage makes checkpoints rarer and never the training slower.

    A checkpoint that cannot be written ends nothing while an older one stands: it is said once, and once more when
    one was written again. Only where none stands the next call raises.

    There is never more in the store than what stays and the one that is being written: what a killed writer, a failed
    write or a failed deletion has left is cleared away before the next one is written, or that one is not.

    Args:
        store: where to; this process is the only one that writes there.
        tell: takes a line of warning; called by the thread.
        has_older: whether a whole checkpoint stands already, here or elsewhere.
        newest: where the one was taken that stands here; None = there is none.
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
        """Whether one is being written."""
        return self._thread is not None and self._thread.is_alive()

    def write(
        self,
        snapshot: Snapshot,
        *,
        is_stage_end: bool = False,
        top1: float | None = None,
        wait_seconds: float = 0.0,
    ) -> bool:
        """Copies a snapshot and returns; a thread writes it, and deletes what need not stay.

        On a GPU the copy is queued on the current stream: what is queued later, as the next step, may change the
        tensors; other streams may not, before :meth:`wait` or the next call.

        Args:
            snapshot: of :func:`inq_ray.training.checkpoint.snapshot.take`.
            is_stage_end: whether its stage ends there.
            top1: accuracy in percent that was measured there.
            wait_seconds: how long to wait while another is being written; WAIT_SECONDS for what has to be written.

        Returns:
            False where it was put off, because another is still being written.

        Raises:
            ValueError: an earlier one could not be written, and none stands.
        """
        if not self.wait(wait_seconds):
            if wait_seconds > 0:
                self._tell(
                    f"{snapshot.position.name} is left out: the one before is not written after {wait_seconds:g} s"
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
            except BaseException as error:  # noqa: BLE001, raised by the next call, in the thread that trains
                self._error = error

        # A daemon: a storage that hangs shall not keep the process from ending.
        self._thread = threading.Thread(target=work, name="checkpoint", daemon=True)
        self._thread.start()
        return True

    def wait(self, seconds: float) -> bool:
        """Waits until nothing is being written; returns whether that is so.

        Raises:
            ValueError: the last one could not be written, and none stands.
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
        """Waits for the last checkpoint, not longer than ``seconds``, and lets go of the buffers.

        Returns:
            Whether it is complete; where not, it is said.

        Raises:
            ValueError: it could not be written, and none stands.
        """
        done = self.wait(seconds)
        if done:
            self._buffers = {}
        else:
            self._tell(f"the last checkpoint is not written after {seconds:g} s: it is given up")
        return done

    def _copied(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copies in buffers that are used again, in each tensor's own memory format: the fastest to copy."""
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
            self._is_tidy = False  # until it is written, and what need not stay is deleted
            entry = self.store.save(snapshot, is_stage_end=is_stage_end, top1=top1)
        except ValueError as error:
            self._failed(str(error))
            return
        self.last = Written(entry, time.perf_counter() - began)
        self._has_older, self._newest = True, entry.position
        if self._failed_in_a_row:
            self._tell(f"checkpoints are written again, {entry.position.name} is; {self._failed_in_a_row} were not")
            self._failed_in_a_row = 0
        try:
            self.store.prune(entry.position)
            self._is_tidy = True
        except ValueError as error:
            self._tell(f"an old checkpoint stays, and no other is written before it is deleted: {error}")

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
            self._tell(f"a checkpoint failed, the one before stands and training goes on: {reason}")


def _is_alike(buffer: Tensor, tensor: Tensor) -> bool:
    return (buffer.shape, buffer.dtype, buffer.is_pinned()) == (tensor.shape, tensor.dtype, tensor.is_cuda) and (
        buffer.stride() == tensor.stride()
    )
