"""Trackers by name: each has an entry here, and a file of its own."""

import dataclasses
import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from inq_ray.files.extra import install_command
from inq_ray.tracking import mlflow, tensorboard, wandb
from inq_ray.tracking.guarded import Guarded
from inq_ray.tracking.metrics import Scalar, Tracker, flat
from inq_ray.tracking.reporter import Trackers
from inq_ray.training.config import RunConfig


class TrackerModule(Protocol):
    """Interface of a tracker's file."""

    def needs(self) -> tuple[str, ...]:
        """Return the packages that it requires; the extra of the tracker's name installs them."""
        ...

    def start(self, name: str, parameters: Mapping[str, Scalar], folder: Path) -> Tracker:
        """Start tracking a run with this name, parameters and folder; may raise anything, or take long."""
        ...


TRACKERS: dict[str, TrackerModule] = {"tensorboard": tensorboard, "mlflow": mlflow, "wandb": wandb}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed; imports and starts nothing.

    Raises:
        ValueError: A name is unknown, or its library is not installed; one line with the remedy.
    """
    for name in names:
        if name not in TRACKERS:
            near = difflib.get_close_matches(name, TRACKERS, n=1, cutoff=0.5) or list(TRACKERS)
            raise ValueError(f"--track {name}: there is no such tracker; nearest: {', '.join(near)}")
        missing = [library for library in TRACKERS[name].needs() if importlib.util.find_spec(library) is None]
        if missing:
            command = install_command(name, *missing)
            raise ValueError(f"--track {name} needs {', '.join(missing)}, not installed: {command}")


def open_trackers(names: Sequence[str], config: RunConfig, folder: Path) -> Trackers:
    """Start trackers without waiting for them.

    Args:
        names: Names of trackers, see :func:`check_trackers`; no duplicates.
        config: Configuration of the run; its values become the tracker's parameters.
        folder: Folder of the run, which exists; its name is the run's name.

    Raises:
        ValueError: As in :func:`check_trackers`.
    """
    check_trackers(names)
    parameters = flat(dataclasses.asdict(config))

    def start(name: str) -> Guarded:
        return Guarded(name, lambda: TRACKERS[name].start(folder.name, parameters, folder))

    return Trackers([start(name) for name in dict.fromkeys(names)], config.phase_epochs)
