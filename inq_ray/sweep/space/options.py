"""What a sweep is asked for, beside what its trials have in common: frozen values, checked when made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from inq_ray.sweep.space.axes import Axis, Choices, FreeSchedules, Range
from inq_ray.sweep.space.schedules import Rising, Schedule, generated, parse_schedule
from inq_ray.sweep.space.search import Objective, Search
from inq_ray.sweep.space.space import BITS, EPOCHS, LR, SCHEDULE, STRATEGY, WEIGHT_DECAY, Space, check_searchable
from inq_ray.sweep.trials.early_stopping import Stopping
from inq_ray.training.config import RunConfig, field_type

# What is searched where nothing is said: four that share as much as four can.
_DEFAULT: tuple[Schedule, ...] = ((0.5, 0.75, 0.875, 1.0), (0.5, 0.75, 0.9, 1.0), (0.5, 0.75, 1.0), (0.5, 1.0))


@dataclass(frozen=True, kw_only=True)
class SpaceOptions:
    """What is searched; one that is left out is as the flags of a run say."""

    schedules: tuple[str, ...] = ()
    """Portions of whole schedules: "0.5,0.75,0.875,1" "0.3,0.6,0.8,1"."""
    num_stages: tuple[int, ...] = ()
    """Generate schedules of so many stages."""
    first_portion: tuple[float, ...] = ()
    """Portions with which generated schedules begin; by default 0.5."""
    rising: tuple[Literal["geometric", "linear", "free"], ...] = ()
    """How generated schedules rise; free (alone): as a searcher proposes. By default geometric."""
    lrs: tuple[str, ...] = ()
    """Learning rates: 0.01 0.02, or a range 1e-4..1e-1, drawn on a log scale."""
    epochs_per_stage: tuple[int, ...] = ()
    """Epochs of re-training per stage."""
    bits: tuple[int, ...] = ()
    """Bits of a weight."""
    strategies: tuple[Literal["pruning", "random"], ...] = ()
    """Which weights freeze first."""
    weight_decays: tuple[str, ...] = ()
    """L2 penalties: 1e-4 5e-4, or a range 1e-5..1e-3."""
    space: str | None = None
    """A YAML or JSON file that says all of these, by the same names (fields: any other field of a run's config)."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How it is searched."""

    search: Search = "grid"
    """grid tries all, random draws --trials of them, optuna lets Optuna's TPE propose them."""
    trials: int = 20
    """Trials of random and optuna."""
    search_seed: int = 0
    """Of random and optuna."""
    objective: Objective = "top1"
    """What optuna looks for: accuracy, or accuracy and few bits."""
    stopping: Stopping = "none"
    """Stop trials early: asha keeps the best of those that came to a portion, median those not below the median."""
    reduction: float = 2.0
    """With asha, one of so many goes on; it compares where 1/2, 1/4, 1/8 (for 2) of the weights are live."""
    grace_portion: float = 0.5
    """No trial is stopped before this portion."""
    reuse: bool = True
    """Train stages that trials share once."""
    retries: int = 1
    """Times that a trial that failed is started again."""
    max_concurrent: int | None = None
    """Trials at the same time; by default as many as the cluster has room for."""
    workers_per_trial: int | None = None
    """Processes of a trial; another name for --num-workers."""
    gpus_per_trial: int | None = None
    """GPUs of a trial, one for each of its workers; another name for --num-workers and --use-gpu."""

    def __post_init__(self) -> None:
        for flag, choice, choices in (
            ("--search", self.search, get_args(Search)),
            ("--objective", self.objective, get_args(Objective)),
            ("--stopping", self.stopping, get_args(Stopping)),
        ):
            if choice not in choices:
                raise ValueError(f"{flag} must be one of {', '.join(choices)}, got {choice!r}")
        for flag, value in (
            ("--trials", self.trials),
            ("--max-concurrent", self.max_concurrent),
            ("--workers-per-trial", self.workers_per_trial),
            ("--gpus-per-trial", self.gpus_per_trial),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{flag} must be at least 1, got {value}")
        for flag, value in (("--retries", self.retries), ("--search-seed", self.search_seed)):
            if value < 0:
                raise ValueError(f"{flag} must be at least 0, got {value}")
        if self.search_seed >= 2**32:
            raise ValueError(f"--search-seed must be below 2^32, got {self.search_seed}")
        if not self.reduction > 1:
            raise ValueError(f"--reduction must be above 1, got {self.reduction}")
        if not 0 <= self.grace_portion <= 1:
            raise ValueError(f"--grace-portion must be in [0, 1], got {self.grace_portion}")
        self._check_parts()

    def _check_parts(self) -> None:
        """Refuses what plays no part: who gives it expects something else."""
        parts = {
            "trials": (self.search != "grid", "grid tries all combinations: add --search random or optuna"),
            "search_seed": (self.search != "grid", "grid draws nothing: add --search random or optuna"),
            "objective": (self.search == "optuna", f"--search {self.search} looks for none: add --search optuna"),
            "reduction": (self.stopping == "asha", "it is asha's: add --stopping asha"),
            "grace_portion": (self.stopping != "none", "no trial is stopped: add --stopping asha or median"),
        }
        for field in fields(self):
            plays, why = parts.get(field.name, (True, ""))
            value = getattr(self, field.name)
            if not plays and value != field.default:
                raise ValueError(f"--{field.name.replace('_', '-')} {value} plays no part, {why}")

    def workers(self, config: RunConfig) -> RunConfig:
        """The configuration with --workers-per-trial and --gpus-per-trial.

        Raises:
            ValueError: they contradict each other, or ask for nothing.
        """
        given = {each for each in (self.workers_per_trial, self.gpus_per_trial) if each is not None}
        if len(given) > 1:
            raise ValueError(
                f"--workers-per-trial {self.workers_per_trial} and --gpus-per-trial {self.gpus_per_trial} differ: a "
                "worker has one GPU"
            )
        if not given:
            return config
        use_gpu = config.cluster.use_gpu or self.gpus_per_trial is not None
        return config.replace(cluster={"num_workers": given.pop(), "use_gpu": use_gpu})


def space_of(options: SpaceOptions) -> Space:
    """The search space that flags, or the file that they name, ask for.

    Raises:
        ValueError: names flag or field, and what it should be.
    """
    extra: dict[str, Axis] = {}
    path = options.space
    if path is not None:
        if options != SpaceOptions(space=path):
            raise ValueError("--space says all that is searched: give either the file or flags")
        options, extra = _read(path)
    axes: dict[str, Axis] = {}
    if (schedules := _schedules(options)) is not None:
        axes[SCHEDULE] = schedules
    lists: list[tuple[str, str, tuple[Any, ...]]] = [
        (BITS, "--bits", options.bits),
        (STRATEGY, "--strategies", options.strategies),
        (EPOCHS, "--epochs-per-stage", options.epochs_per_stage),
        (LR, "--lrs", options.lrs),
        (WEIGHT_DECAY, "--weight-decays", options.weight_decays),
    ]
    for name, flag, values in lists:
        if values:
            axes[name] = _axis(flag, values, is_number=name in (LR, WEIGHT_DECAY))
    for name, axis in extra.items():
        if name in axes:
            raise ValueError(f"--space {path}: fields names {name}, which is said without it too: leave one out")
        axes[name] = axis
    return Space(axes or {SCHEDULE: Choices(_DEFAULT)})


def _schedules(options: SpaceOptions) -> Axis | None:
    if "free" in options.rising:
        if options.schedules or options.first_portion or len(options.rising) > 1:
            raise ValueError("--rising free takes --num-stages, and no other way to make schedules")
        return FreeSchedules(options.num_stages) if options.num_stages else FreeSchedules()
    found = [parse_schedule(text) for text in options.schedules]
    if not options.num_stages and (options.first_portion or options.rising):
        raise ValueError("--first-portion and --rising make schedules of --num-stages: give that too")
    kinds: list[Rising] = [each for each in options.rising if each != "free"] or ["geometric"]
    for num_stages in options.num_stages:
        for first in options.first_portion or (0.5,):
            found += [generated(num_stages, first, rising) for rising in kinds]
    return Choices(tuple(dict.fromkeys(found))) if found else None


def _axis(flag: str, values: tuple[Any, ...], *, is_number: bool) -> Axis:
    """Values to choose from, or a range."""
    try:
        if len(values) == 1 and isinstance(values[0], str) and ".." in values[0]:
            low, _, high = values[0].partition("..")
            if high.startswith("."):
                raise ValueError(f"{values[0]!r} has a dot too many: a range is such as 1e-4..1e-1")
            return Range(_number(low), _number(high))
        return Choices(tuple(_number(value) if is_number else value for value in values))
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from None


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        alone = ", which stands alone" if ".." in str(text) else ""
        raise ValueError(f"{text!r} is neither a number nor a range such as 1e-4..1e-1{alone}") from None


def _read(path: str) -> tuple[SpaceOptions, dict[str, Axis]]:
    """Options of a file, and axes of other fields that it names."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
        values = json.loads(text) if path.endswith(".json") else _yaml(text)
        if not isinstance(values, Mapping):
            raise ValueError(f"it must be an object of names and values, got {type(values).__name__}")
        return _from_values(dict(values))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"--space {path}: {' '.join(str(error).split())}") from None


def _yaml(text: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {error}") from None


def _from_values(values: dict[str, Any]) -> tuple[SpaceOptions, dict[str, Axis]]:
    extra = values.pop("fields", None) or {}
    known = {field.name: field for field in fields(SpaceOptions) if field.name != "space"}
    if not isinstance(extra, Mapping):
        raise ValueError("fields must be an object of names and lists of values")
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise ValueError(f"{unknown[0]} is unknown; there are {', '.join(known)}, fields")
    lists: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else (value,) for name, value in values.items()
    }
    for name in ("lrs", "weight_decays"):
        lists |= {name: tuple(str(each) for each in lists[name])} if name in lists else {}
    if "schedules" in lists:
        lists["schedules"] = tuple(_schedule_text(each) for each in lists["schedules"])
    kinds: dict[str, type | tuple[type, ...]] = {
        "num_stages": int, "first_portion": (int, float), "epochs_per_stage": int, "bits": int, "rising": str,
        "strategies": str,
    }  # fmt: skip
    for name, kind in kinds.items():
        wrong = [each for each in lists.get(name, ()) if isinstance(each, bool) or not isinstance(each, kind)]
        if wrong:
            raise ValueError(f"{name} cannot be {wrong[0]!r}")
    wrong = [each for each in lists.get("rising", ()) if each not in ("geometric", "linear", "free")]
    if wrong:
        raise ValueError(f"rising must be geometric, linear or free, got {wrong[0]!r}")
    empty = sorted(name for name in lists if not lists[name])
    if empty:
        raise ValueError(f"{empty[0]} names no value")
    return SpaceOptions(**lists), {str(name): _field_axis(str(name), value) for name, value in extra.items()}


def _field_axis(name: str, value: Any) -> Axis:
    """An axis of another field; a field of numbers takes them as text too: of 1e-3 YAML makes a text."""
    check_searchable(name)
    values = _listed(value)
    if field_type(name) in (float, float | None):
        values = tuple(_number(each) if isinstance(each, str) and ".." not in each else each for each in values)
    return _axis(name, values, is_number=False)


def _schedule_text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _listed(value: Any) -> tuple[Any, ...]:
    listed = value if isinstance(value, list) else [value]
    return tuple(tuple(each) if isinstance(each, list) else each for each in listed)
