"""What went wrong in a run and how it went on: a line for people, and one in events.jsonl for programs."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal[
    "checkpoint_damaged",  # left out; an older one is taken
    "checkpoint_failed",  # could not be written, is written again, or an old one could not be deleted
    "failed",  # the run has ended badly
    "replicas_differ",  # the ranks no longer hold the same bits
    "restarted",  # workers are placed again
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
        seconds_lost: wall-clock time from the checkpoint from which the run goes on until it does; what was trained in
            it is trained again, the rest was waiting. None where nothing is known to be lost.
    """

    kind: Kind
    text: str
    seconds_lost: float | None = None


class IncidentLog:
    """The incidents of a run, one JSON object a line, oldest first; one process at a time adds to it.

    Args:
        path: of the file, there or not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, incident: Incident) -> None:
        """Appends a line, with the time (seconds since 1970) at which it was added."""
        values = {"time": round(time.time(), 3), **asdict(incident)}
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(values) + "\n")

    def summary(self) -> dict[str, Any]:
        """How many there were of each kind, and the seconds lost in all."""
        incidents = list(self._read())
        lost = sum(incident["seconds_lost"] or 0.0 for incident in incidents)
        return {"counts": dict(sorted(Counter(each["kind"] for each in incidents).items())), "seconds_lost": lost}

    def _read(self) -> Iterator[dict[str, Any]]:
        """The whole lines; the last may be half written by a process that was killed."""
        if not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue
