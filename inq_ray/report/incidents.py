"""Incidents of a run or sweep: read, and shown as a table."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from inq_ray.report.files import Files
from inq_ray.report.html import Html, element, table
from inq_ray.report.quantity import number
from inq_ray.training.report.screen import duration

EVENTS = "events.jsonl"
# Times after the year 9999 are not dates.
_MOST_SECONDS = 253_402_300_799


class Happened(NamedTuple):
    """A line of the file of incidents; `trial` is empty in a run's own file."""

    time: float | None
    kind: str
    text: str
    seconds_lost: float | None
    trial: str


def read_incidents(files: Files) -> tuple[Happened, ...]:
    """Return the incidents of a run or sweep; a missing file means that there were none."""
    return tuple(
        Happened(
            number(line.get("time")),
            str(line.get("kind", "")),
            str(line.get("text", "")),
            number(line.get("seconds_lost")),
            str(line.get("trial", "")),
        )
        for line in files.lines_of(EVENTS, why_missing=None)
    )


def incident_table(happened: Sequence[Happened]) -> Html:
    """Return a table of incidents; a line if there were none."""
    if not happened:
        return element("p", "There were none.")
    heads = ["time, UTC", "kind", "incident", "lost"]
    has_trials = any(each.trial for each in happened)
    if has_trials:
        heads.insert(1, "trial")
    rows = []
    for each in happened:
        lost = "" if each.seconds_lost is None or each.seconds_lost < 0 else duration(min(each.seconds_lost, 1e9))
        trial = [each.trial] if has_trials else []
        rows.append([_time(each.time), *trial, each.kind.replace("_", " "), each.text, lost])
    return table(heads, rows, texts=("time, UTC", "trial", "kind"), prose=("incident",), label="Incidents")


def _time(seconds: float | None) -> str:
    if seconds is None or not 0 <= seconds <= _MOST_SECONDS:
        return ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
