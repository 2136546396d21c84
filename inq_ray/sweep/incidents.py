"""Events of trials' runs on their way to the sweep, and the sweep's file of incidents."""

from dataclasses import dataclass
from pathlib import Path

from inq_ray.training.report.events import Event
from inq_ray.training.report.incident import Incident, IncidentLog


@dataclass(frozen=True)
class FromTrial:
    """An event of a trial's run.

    Attributes:
        name: Name of the trial.
        event: Event of its run.
    """

    name: str
    event: Event


@dataclass(frozen=True, kw_only=True)
class TrialIncident(Incident):
    """An incident of a trial's run.

    Attributes:
        trial: Name of the trial.
    """

    trial: str


class SweepIncidents:
    """Writes the incidents of all trials to one file, a JSON object per line.

    Args:
        path: Path of the file, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._log = IncidentLog(path)

    def report(self, event: object) -> None:
        """Write an incident; ignore other events."""
        if isinstance(event, FromTrial) and isinstance(event.event, Incident):
            self._log.add(TrialIncident(trial=event.name, **vars(event.event)))
