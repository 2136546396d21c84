"""What went wrong in a run and how it went on: a line for people, and one in events.jsonl for programs."""

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from inq_ray.files.whole import append_text

Kind = Literal[
    "checkpoint_damaged",  # left out; an older one is taken
    "checkpoint_failed",  # could not be written, is written again, or an old one could not be deleted
    "failed",  # the run has ended badly
    "metrics_failed",  # could not be written to the run's folder, or are written again
    "replicas_differ",  # the ranks no longer hold the same bits
    "restarted",  # begins again: it was interrupted before its first checkpoint, or has no whole one
    "resumed",  # goes on from a checkpoint
    "stage_rewound",  # --on-nan rewind
    "step_skipped",  # --on-nan skip
    "stopped",  # was asked to, and has left a checkpoint
    "workers_lost",  # a process or a machine is gone or does not answer
]


@dataclass(frozen=True, kw_only=True)
class Incident:
    """Something that does not happen in a calm run.

    Attributes:
        kind: for programs.
        text: one line for people.
        seconds_lost: wall-clock time from the checkpoint from which the run goes on until it does, or from its start;
            what was trained in it is trained again, the rest was waiting. None where nothing is known to be lost.
    """

    kind: Kind
    text: str
    seconds_lost: float | None = None


class IncidentLog:
    """The incidents of a run, one JSON object a line, oldest first; one process at a time adds to it.

    A full disk is an incident: what cannot be written is kept, and written with the next that can.

    Args:
        path: of the file, there or not.
        check: called before each line is written; an OSError that it raises is one of writing.
    """

    def __init__(self, path: Path, check: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self._check = check
        self._waiting: list[str] = []
        self._lock = threading.Lock()

    def add(self, incident: Incident) -> None:
        """Append a line, with the time (seconds since 1970) at which it was added; any thread may call it."""
        values = {"time": round(time.time(), 3), **asdict(incident)}
        with self._lock:
            self._waiting.append(json.dumps(values) + "\n")
            with contextlib.suppress(OSError):
                self._check()
                append_text(self.path, "".join(self._waiting))
                self._waiting.clear()

    def summary(self) -> dict[str, Any]:
        """How many there were of each kind, and the seconds lost in all."""
        incidents = list(self._read())
        lost = sum(incident["seconds_lost"] for incident in incidents)
        return {"counts": dict(sorted(Counter(each["kind"] for each in incidents).items())), "seconds_lost": lost}

    def _read(self) -> Iterator[dict[str, Any]]:
        """Return the whole lines; one may be half written by a process that was killed, or damaged since."""
        lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        for line in [*lines, *(line.encode() for line in self._waiting)]:
            try:
                incident = json.loads(line)
                yield {"kind": str(incident["kind"]), "seconds_lost": float(incident["seconds_lost"] or 0.0)}
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
