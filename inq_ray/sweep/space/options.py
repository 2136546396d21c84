"""What a sweep is asked for, beside what its trials have in common: frozen values, checked when made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from inq_ray.sweep.space.axes import Axis, Choices, FreeSchedules, Range
from inq_ray.sweep.space.schedules import Rising, Schedule, generated, parse_schedule
from inq_ray.sweep.space.search import Objective, Search
from inq_ray.sweep.space.space import BITS, EPOCHS, LR, SCHEDULE, STRATEGY, WEIGHT_DECAY, Space, check_searchable
from inq_ray.sweep.trials.early_stopping import Stopping
from inq_ray.training.config import RunConfig, field_type
from inq_ray.training.config.checks import at_least, between
from inq_ray.training.config.option import Affects, Unused, check_options, check_refused, declared, option

# What is searched where nothing is said: four that share as much as four can.
_DEFAULT: tuple[Schedule, ...] = ((0.5, 0.75, 0.875, 1.0), (0.5, 0.75, 0.9, 1.0), (0.5, 0.75, 1.0), (0.5, 1.0))


@dataclass(frozen=True, kw_only=True)
class SpaceOptions:
    """What is searched; one that is left out is as the flags of a run say."""

    schedules: tuple[str, ...] = option((), 'Portions of whole schedules: "0.5,0.75,0.875,1" "0.3,0.6,0.8,1".')
    num_stages: tuple[int, ...] = option((), "Numbers of stages to generate schedules of.")
    first_portion: tuple[float, ...] = option((), "First portions of generated schedules; by default 0.5.")
    rising: tuple[Literal["geometric", "linear", "free"], ...] = option(
        (), "How generated schedules rise; free (alone): as a searcher proposes. By default geometric."
    )
    lrs: tuple[str, ...] = option((), "Learning rates: 0.01 0.02, or a range 1e-4..1e-1, drawn on a log scale.")
    epochs_per_stage: tuple[int, ...] = option((), "Epochs of re-training per stage.")
    bits: tuple[int, ...] = option((), "Bits of a weight.")
    strategies: tuple[str, ...] = option(
        (), "Which weights freeze first.", choices=declared(RunConfig)[STRATEGY].choices
    )
    weight_decays: tuple[str, ...] = option((), "L2 penalties: 1e-4 5e-4, or a range 1e-5..1e-3.")
    space: str | None = option(
        None, "YAML or JSON file with all of these, by the same names (fields: any other option of a run)."
    )

    def __post_init__(self) -> None:
        check_options(self)


def _unless(when: Any, why: str) -> tuple[Unused, ...]:
    """The option is refused unless this is so."""
    return (Unused(when=lambda search: not when(search), why=f"has no effect: {why}", is_refused=True),)


_DRAWS = _unless(lambda search: search.search != "grid", "grid tries all combinations; add --search random or optuna")
_STOPS = _unless(lambda search: search.stopping != "none", "no trial is stopped; add --stopping asha or median")
_OPTUNA = _unless(lambda search: search.search == "optuna", "only optuna has one; add --search optuna")
_ASHA = _unless(lambda search: search.stopping == "asha", "it belongs to asha; add --stopping asha")


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How it is searched."""

    search: Search = option("grid", "grid: try all; random: draw --trials of them; optuna: Optuna's TPE proposes them.")
    trials: int = option(20, "Trials of random and optuna.", check=at_least(1), unused=_DRAWS)
    search_seed: int = option(0, "Random seed of random and optuna.", check=between(f"[0, {2**32})"), unused=_DRAWS)
    objective: Objective = option("top1", "What optuna looks for: accuracy, or accuracy and few bits.", unused=_OPTUNA)
    stopping: Stopping = option(
        "none",
        "Early stopping: asha keeps the best of those that came to a portion, median those not below the median.",
    )
    reduction: float = option(
        2.0,
        "With asha, one of so many goes on; it compares where 1/2, 1/4, 1/8 (for 2) of the weights are live.",
        check=between("(1, inf)"),
        unused=_ASHA,
    )
    grace_portion: float = option(
        0.5, "Portion before which no trial is stopped.", check=between("[0, 1]"), unused=_STOPS
    )
    reuse: bool = option(True, "Train stages that trials share once.")
    retries: int = option(1, "Times that a failed trial is started again.", check=at_least(0), affects=Affects.NOTHING)
    max_concurrent: int | None = option(
        None,
        "Trials at the same time; by default as many as the cluster has room for.",
        check=at_least(1),
        affects=Affects.NOTHING,
    )
    workers_per_trial: int | None = option(
        None, "Processes of a trial; another name for --num-workers.", check=at_least(1), affects=Affects.NOTHING
    )
    gpus_per_trial: int | None = option(
        None,
        "GPUs of a trial, one for each of its workers; another name for --num-workers and --use-gpu.",
        check=at_least(1),
        affects=Affects.NOTHING,
    )

    def __post_init__(self) -> None:
        check_options(self)
        check_refused(self)

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
