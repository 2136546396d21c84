"""Reporter of a run's trackers: rows become metrics."""

import time
from collections.abc import Sequence
from typing import Any

from inq_ray.tracking.guarded import Guarded
from inq_ray.tracking.metrics import flat, row_metrics
from inq_ray.training.report.events import Event, Row

# Longest wait for all trackers together, after a run is finished.
_LAST_WORDS_SECONDS = 60.0


class Trackers:
    """The reporter of all trackers of a run; see :func:`inq_ray.tracking.trackers.open_trackers`."""

    def __init__(self, trackers: Sequence[Guarded], phases: Sequence[int]) -> None:
        self._trackers = list(trackers)
        self._phases = phases

    def report(self, event: Event) -> None:
        """Handle an event; rows become metrics, by the number of epochs since the run began."""
        if not isinstance(event, Row):
            return
        for tracker in self._trackers:
            tracker.log(row_metrics(event), epochs_done(event, self._phases))

    def close(self, summary: dict[str, Any] | None) -> None:
        """End every tracker's run, and wait for all of them, at most a minute; a second call does nothing.

        Args:
            summary: Summary of the run; None if it failed.
        """
        trackers, self._trackers = self._trackers, []
        result = None if summary is None else flat({name: summary[name] for name in summary if name != "config"})
        for tracker in trackers:
            tracker.finish(result)
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        for tracker in trackers:
            tracker.join(deadline - time.monotonic())


def epochs_done(row: Row, phases: Sequence[int]) -> int:
    """Return the number of epochs of the whole run up to a row, which does not depend on earlier rows.

    Args:
        row: Row of any phase.
        phases: Number of epochs per phase: of the float training, and of each stage.
    """
    return sum(phases[: row.stage]) + row.epoch
