"""A sweep, as its folder has it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inq_ray.export.packed.reader import SUFFIX
from inq_ray.report.files import Files
from inq_ray.report.incidents import Happened, read_incidents
from inq_ray.sweep.folder import FORMAT_VERSION
from inq_ray.sweep.space.space import configured
from inq_ray.sweep.state import SavedSweep, SavedTrial, read_state
from inq_ray.sweep.trials.trial import Trial

STATE = "sweep.json"


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """What a sweep's folder contains.

    Attributes:
        files: The folder, with a line for each part that is missing or damaged.
        state: State of the sweep.
        trials: Trials in the order of proposals.
        num_bytes: Size of the packed file by trial name, for trials that have one.
        incidents: Incidents of all trials in order.
    """

    files: Files
    state: SavedSweep
    trials: tuple[Trial, ...]
    num_bytes: Mapping[str, int]
    incidents: tuple[Happened, ...]

    @property
    def name(self) -> str:
        """Name of the sweep."""
        return self.files.location.path.rstrip("/").rpartition("/")[2]


def read_sweep(files: Files) -> SweepRecord:
    """Return what the folder of a sweep contains; parts that cannot be used are noted in `files`.

    Raises:
        ValueError: There is no usable state of the sweep.
    """
    values = files.object_of(STATE, why_missing="there is no sweep")
    if values is None:
        raise ValueError(files.problems[-1])
    if values.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{STATE} has another format than this program reads, {FORMAT_VERSION}")
    try:
        state = read_state(values)
    except ValueError as error:
        raise ValueError(f"{STATE} is damaged: {error}") from error
    trials = [trial for saved in state.trials if (trial := _trial(saved, state, files)) is not None]
    return SweepRecord(
        files=files,
        state=state,
        trials=tuple(trials),
        num_bytes=_sizes(files, trials),
        incidents=read_incidents(files),
    )


def _trial(saved: SavedTrial, state: SavedSweep, files: Files) -> Trial | None:
    """Return a trial with its configuration; None if there is none with its values."""
    point: dict[str, Any] = {
        name: tuple(each) if isinstance(each, list) else each for name, each in saved.point.items()
    }
    if point.keys() != state.space.keys():
        files.note(f"trial {saved.name} is left out, it does not have the parameters of the sweep")
        return None
    try:
        trial = Trial(name=saved.name, number=saved.number, point=point, config=configured(state.base, point), keys={})
    except (KeyError, ValueError) as error:
        files.note(f"trial {saved.name} is left out, its values are not possible: {error}")
        return None
    status: Any = saved.status  # checked by read_state
    trial.status, trial.ends, trial.top1 = status, list(saved.ends), saved.top1
    trial.digest, trial.reason = saved.digest, saved.reason
    return trial


def _sizes(files: Files, trials: list[Trial]) -> dict[str, int]:
    found = {}
    for trial in trials:
        if trial.top1 is None:
            continue
        file = files.location.join(trial.name).join(f"{trial.name}{SUFFIX}")
        info = files.attempt(f"the size of {trial.name} is not known", file.info)
        if info is not None:
            found[trial.name] = int(info.size)
    return found
