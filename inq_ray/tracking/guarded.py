"""A tracker that the run neither waits for nor fails with."""

import queue
import threading
from collections.abc import Callable, Mapping

from inq_ray.tracking.fault import warn
from inq_ray.tracking.metrics import Scalar, Tracker


class Guarded:
    """Runs a tracker in its own thread, and drops it after its first failure, with one line on stderr.

    Args:
        name: Name for the line.
        start: Creates the tracker; runs in the thread, as all its calls do.
    """

    def __init__(self, name: str, start: Callable[[], Tracker]) -> None:
        self.name = name
        self._start = start
        self._calls: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._failed = threading.Event()
        # A daemon thread, so that a hanging library does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=f"inq_ray-{name}", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Hand metrics over without waiting."""
        if not self._failed.is_set():
            self._calls.put(lambda tracker: tracker.log(metrics, epoch))

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        """Hand the summary over without waiting; the last call before :meth:`join`."""
        self._calls.put(lambda tracker: tracker.finish(summary))
        self._calls.put(None)

    def join(self, seconds: float) -> None:
        """Wait until everything is written, at most this long; the rest is given up."""
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self._fail("it does not respond")

    def _work(self) -> None:
        try:
            tracker = self._start()
            while (call := self._calls.get()) is not None:
                call(tracker)
        except (Exception, SystemExit) as error:  # noqa: BLE001, the run continues after any error of a library
            self._fail(error)

    def _fail(self, reason: str | BaseException) -> None:
        if not self._failed.is_set():
            self._failed.set()
            warn(f"the run continues without the tracker {self.name}", reason)
