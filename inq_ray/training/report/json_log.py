"""JSON output of a run: a line for each event, with time, run, rank and stage, on standard output."""

import contextlib
import dataclasses
import datetime as dt
import json
import math
import time
from typing import Any

from inq_ray.training.report.events import Event, Note, Progress, Row, Saved, Started, WorkersPlaced
from inq_ray.training.report.incident import Incident

# Shortest time between progress lines.
_PROGRESS_SECONDS = 60.0


class JsonLog:
    """Prints the events that :class:`inq_ray.training.report.console.Console` shows.

    Every line has `time` (UTC), `run`, `rank` and `stage`: the event's, or else the last known ones. Rank 0 reports for
    all, except for the placement of workers, which has a line for each rank.

    Args:
        run: Name of the run.
    """

    def __init__(self, run: str | None) -> None:
        self._run = run
        self._stage: int | None = None
        self._last_progress = -math.inf

    def report(self, event: Event) -> None:
        """Print an event."""
        match event:
            case WorkersPlaced():
                for rank, line in enumerate(event.lines):
                    self._print("placed", rank=rank, text=line)
            case Progress():
                self._stage = event.stage
                if event.is_printed or time.monotonic() - self._last_progress >= _PROGRESS_SECONDS:
                    self._last_progress = time.monotonic()
                    self._print("progress", **dataclasses.asdict(event))
            case Row():
                self._stage = event.stage
                self._print("row", **dataclasses.asdict(event))
            case Started():
                self._print("started", **dataclasses.asdict(event))
            case Saved():
                self._print("checkpoint", **dataclasses.asdict(event))
            case Note():
                self.say(event.text)
            case Incident():
                self._print("incident", **dataclasses.asdict(event))
            case _:
                pass

    def start(self) -> None:
        """Print that the run starts."""
        self.say("starting Ray and the workers")

    def say(self, line: str) -> None:
        """Print a line for people."""
        self._print("note", text=line)

    def close(self) -> None:
        """Do nothing: no line is live."""

    def show_summary(self, summary: dict[str, Any], folder: str) -> None:
        """Print the result of the run."""
        names = ("top1", "top5", "digest", "seconds")
        self._print("finished", **{name: summary[name] for name in names}, result=folder)

    def _print(self, event: str, **values: Any) -> None:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "run": self._run, "rank": 0, "stage": self._stage, "event": event} | values
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in line.items()
        }
        with contextlib.suppress(BrokenPipeError):  # the reader of the log has ended; the run has not
            print(json.dumps(finite, allow_nan=False), flush=True)
