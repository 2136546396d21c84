"""What trials wait for before they train: a person who sees nothing happen is told."""

import threading
import time
from collections.abc import Callable

# A trial that waits for longer is reported, and again after so many times that.
REPORT_SECONDS = 10.0
_GROWTH = 4.0


class TrialWaits:
    """Trials that wait. Any thread may call it.

    Args:
        say: Takes a line.
        clock: In seconds, never set back.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._lock = threading.Lock()
        self._waits: dict[str, tuple[str, float, float]] = {}

    def begin(self, name: str, what: str) -> None:
        """Note that a trial waits for something from now on, and for nothing else."""
        with self._lock:
            self._waits[name] = (what, self._clock(), REPORT_SECONDS)

    def end(self, name: str) -> None:
        """Note that a trial waits no more."""
        with self._lock:
            self._waits.pop(name, None)

    def report(self) -> None:
        """Say what is waited for by now; call it about once a second."""
        lines = []
        with self._lock:
            for name, (what, since, due) in self._waits.items():
                seconds = self._clock() - since
                if seconds >= due:
                    lines.append(f"{name}  waits     {seconds:.0f} s for {what}")
                    self._waits[name] = (what, since, due * _GROWTH)
        for line in lines:
            self._say(line)
