"""Reports of what trials wait for before they train."""

import threading
import time
from collections.abc import Callable

# A longer wait is reported, and again after this multiple of the time before.
REPORT_SECONDS = 10.0
_GROWTH = 4.0


class TrialWaits:
    """Trials that wait; thread-safe.

    Args:
        say: Called with a line.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._lock = threading.Lock()
        self._waits: dict[str, tuple[str, float, float]] = {}

    def begin(self, name: str, what: str) -> None:
        """Record that a trial now waits for something, and for nothing else."""
        with self._lock:
            self._waits[name] = (what, self._clock(), REPORT_SECONDS)

    def end(self, name: str) -> None:
        """Record that a trial no longer waits."""
        with self._lock:
            self._waits.pop(name, None)

    def report(self) -> None:
        """Report long waits; called about once a second."""
        lines = []
        with self._lock:
            for name, (what, since, due) in self._waits.items():
                seconds = self._clock() - since
                if seconds >= due:
                    lines.append(f"{name}  waits     {seconds:.0f} s for {what}")
                    self._waits[name] = (what, since, due * _GROWTH)
        for line in lines:
            self._say(line)
