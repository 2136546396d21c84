"""Trackers by name, all together one reporter."""

import dataclasses
import difflib
import importlib.util
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inq_ray.tracking import mlflow, tensorboard, wandb
from inq_ray.tracking.fault import warn
from inq_ray.tracking.guarded import Guarded
from inq_ray.tracking.metrics import Scalar, Tracker, flat, row_metrics
from inq_ray.training.config import RunConfig
from inq_ray.training.report.events import Event, Reporter, Row

# For all trackers together, after a run is finished.
_LAST_WORDS_SECONDS = 60.0


class _Kind(NamedTuple):
    """A tracker: what it needs, and how it is started with name, parameters and folder of the run."""

    needs: Callable[[], tuple[str, ...]]
    start: Callable[[str, Mapping[str, Scalar], Path], Tracker]


_KINDS = {
    "tensorboard": _Kind(lambda: ("tensorboard",), tensorboard.start),
    "mlflow": _Kind(lambda: mlflow.NEEDS if os.environ.get(mlflow.ADDRESS) else mlflow.NEEDS_HERE, mlflow.start),
    "wandb": _Kind(lambda: ("wandb",), wandb.start),
}


class Trackers:
    """The reporter of all trackers of a run; see :func:`open_trackers`."""

    def __init__(self, trackers: Sequence[Guarded], config: RunConfig) -> None:
        self._trackers = list(trackers)
        self._config = config

    def report(self, event: Event) -> None:
        """Takes an event; rows become metrics, by the number of epochs since the run began."""
        if not isinstance(event, Row):
            return
        for tracker in self._trackers:
            tracker.log(row_metrics(event), epochs_behind(self._config, event))

    def close(self, summary: dict[str, Any] | None) -> None:
        """Ends every tracker's run, and waits for all of them, at most a minute; a second call does nothing.

        Args:
            summary: of the run; None where it has failed.
        """
        trackers, self._trackers = self._trackers, []
        result = None if summary is None else flat({name: summary[name] for name in summary if name != "config"})
        for tracker in trackers:
            tracker.finish(result)
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        for tracker in trackers:
            tracker.join(deadline - time.monotonic())


def epochs_behind(config: RunConfig, row: Row) -> int:
    """How many epochs of its whole run lie behind a row. It follows from the row: a driver may not have seen others.

    Args:
        config: of the run.
        row: of any of its stages.
    """
    if row.stage == 0:
        return row.epoch
    return config.float_epochs + sum(config.stage_epochs[: row.stage - 1]) + row.epoch


class Together:
    """Several reporters as one, none of which ends anything by what it raises.

    Its first error is a line on stderr. The others get the event all the same, and it gets the next ones: a disk may
    have room again.
    """

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters
        self._failed: set[int] = set()

    def report(self, event: Event) -> None:
        """Hands an event to each."""
        for place, reporter in enumerate(self._reporters):
            try:
                reporter.report(event)
            except (Exception, SystemExit) as error:  # noqa: BLE001, rich makes SystemExit of a closed pipe
                self._say_once(place, error)

    def _say_once(self, place: int, error: BaseException) -> None:
        if place not in self._failed:
            self._failed.add(place)
            warn(f"the run goes on, and {type(self._reporters[place]).__name__} misses reports", error)


def check_trackers(names: Sequence[str]) -> None:
    """Refuses what cannot be tracked with; imports and starts nothing.

    Raises:
        ValueError: a name is unknown, or its library is not installed; one line with what to do.
    """
    for name in names:
        if name not in _KINDS:
            near = difflib.get_close_matches(name, _KINDS, n=1, cutoff=0.5) or list(_KINDS)
            raise ValueError(f"--track {name}: there is no such tracker; nearest: {', '.join(near)}")
        missing = [library for library in _KINDS[name].needs() if importlib.util.find_spec(library) is None]
        if missing:
            raise ValueError(f"--track {name} needs {', '.join(missing)}: pip install 'inq-ray[{name}]'")


def open_trackers(names: Sequence[str], config: RunConfig, folder: Path) -> Trackers:
    """Starts trackers, and does not wait for them.

    Args:
        names: of trackers, see :func:`check_trackers`; none twice.
        config: of the run; its values become the run's parameters.
        folder: of the run; made before. Its name is the run's.

    Raises:
        ValueError: as :func:`check_trackers`.
    """
    check_trackers(names)
    parameters = flat(dataclasses.asdict(config))

    def start(name: str) -> Guarded:
        return Guarded(name, lambda: _KINDS[name].start(folder.name, parameters, folder))

    return Trackers([start(name) for name in dict.fromkeys(names)], config)
