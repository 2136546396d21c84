"""Incidents of a run: a line for people, and one in events.jsonl for programs."""

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
    "checkpoint_damaged",  # ignored; an older one is used
    "checkpoint_failed",  # could not be written, is written again, or an old one could not be deleted
    "failed",  # the run has failed
    "metrics_failed",  # could not be written to the run's folder, or are written again
    "replicas_differ",  # the ranks no longer hold the same bits
    "restarted",  # begins again: interrupted before its first checkpoint, or has no complete one
    "resumed",  # continues from a checkpoint
    "stage_rewound",  # --on-nan rewind
    "step_skipped",  # --on-nan skip
    "stopped",  # stopped on request, leaving a checkpoint
    "workers_lost",  # a process or a machine has failed or does not respond
]


@dataclass(frozen=True, kw_only=True)
class Incident:
    """Something that does not happen in an undisturbed run.

    Attributes:
        kind: Kind, for programs.
        text: One line for people.
        seconds_lost: Wall-clock time between the checkpoint, or the start, that the run continues from and the moment
            it does: training that is repeated, and waiting. None if no loss is known.
    """

    kind: Kind
    text: str
    seconds_lost: float | None = None


class IncidentLog:
    """The incidents of a run, one JSON object per line, oldest first; only one process at a time appends.

    A full disk is an incident: lines that cannot be written are kept, and written with the next ones.

    Args:
        path: Path of the file, which need not exist.
        check: Called before each line is written; an OSError that it raises counts as a failed write.
    """

    def __init__(self, path: Path, check: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self._check = check
        self._waiting: list[str] = []
        self._lock = threading.Lock()

    def add(self, incident: Incident) -> None:
        """Append a line with the time (seconds since 1970) at which it was added; thread-safe."""
        values = {"time": round(time.time(), 3), **asdict(incident)}
        with self._lock:
            self._waiting.append(json.dumps(values) + "\n")
            with contextlib.suppress(OSError):
                self._check()
                append_text(self.path, "".join(self._waiting))
                self._waiting.clear()

    def summary(self) -> dict[str, Any]:
        """Return the number of incidents of each kind, and the total seconds lost."""
        incidents = list(self._read())
        lost = sum(incident["seconds_lost"] for incident in incidents)
        return {"counts": dict(sorted(Counter(each["kind"] for each in incidents).items())), "seconds_lost": lost}

    def _read(self) -> Iterator[dict[str, Any]]:
        """Yield the complete lines; a killed process may have left a partial one, and lines may be damaged."""
        lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        for line in [*lines, *(line.encode() for line in self._waiting)]:
            try:
                incident = json.loads(line)
                yield {"kind": str(incident["kind"]), "seconds_lost": float(incident["seconds_lost"] or 0.0)}
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
