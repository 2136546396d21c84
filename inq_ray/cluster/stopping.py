"""SIGTERM and Ctrl-C in the driver: the first lets the run leave a checkpoint and end, the second ends it at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from inq_ray.cluster.failure import RunStoppedError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Stop signals of this process, handled in its main thread only.

    Attributes:
        asked: The first signal; None = no signal so far.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._is_working = False

    @contextlib.contextmanager
    def listened_to(self) -> Iterator[None]:
        """Handle the signals during the block, and restore the handlers afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Only record the first signal during the block: the workers are running, and end in order."""
        self._is_working = True
        try:
            yield
        finally:
            self._is_working = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        is_first, self.asked = self.asked is None, self.asked or signal.Signals(number)
        if not (is_first and self._is_working):
            raise RunStoppedError(
                self.asked, "ended at once; run the same command to continue from the last checkpoint"
            )
