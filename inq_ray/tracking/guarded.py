"""A tracker that the run neither waits for nor fails with."""

import queue
import threading
from collections.abc import Callable, Mapping

from inq_ray.tracking.fault import warn
from inq_ray.tracking.metrics import Scalar, Tracker


class Guarded:
    """Runs a tracker in a thread of its own, and leaves it out from its first failure on, with one line on stderr.

    Args:
        name: for the line.
        start: makes the tracker; runs in the thread, as everything else does.
    """

    def __init__(self, name: str, start: Callable[[], Tracker]) -> None:
        self.name = name
        self._start = start
        self._calls: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._failed = threading.Event()
        # A daemon: a library that hangs does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=f"inq_ray-{name}", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Hand metrics over and does not wait."""
        if not self._failed.is_set():
            self._calls.put(lambda tracker: tracker.log(metrics, epoch))

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        """Hand the summary over and does not wait; the last call before :meth:`join`."""
        self._calls.put(lambda tracker: tracker.finish(summary))
        self._calls.put(None)

    def join(self, seconds: float) -> None:
        """Wait until all is written, at most so long; what is not by then is given up."""
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self._fail("it does not answer")

    def _work(self) -> None:
        try:
            tracker = self._start()
            while (call := self._calls.get()) is not None:
                call(tracker)
        except (Exception, SystemExit) as error:  # noqa: BLE001, whatever a library raises, the run goes on
            self._fail(error)

    def _fail(self, reason: str | BaseException) -> None:
        if not self._failed.is_set():
            self._failed.set()
            warn(f"the run goes on without the tracker {self.name}", reason)
