"""Search space options, from flags or a file."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from inq_ray.sweep.space.axes import Axis, Choices, FreeSchedules, Range
from inq_ray.sweep.space.schedules import Rising, RisingOrFree, Schedule, generated, parse_schedule
from inq_ray.sweep.space.space import BITS, EPOCHS, LR, SCHEDULE, STRATEGY, WEIGHT_DECAY, Space, check_searchable
from inq_ray.training.config import RunConfig, field_type
from inq_ray.training.config.json_values import checked
from inq_ray.training.config.option import Declared, check_choices, check_options, declared, flag_of, option

# Default schedules: four that share as many stages as four can.
_DEFAULT: tuple[Schedule, ...] = ((0.5, 0.75, 0.875, 1.0), (0.5, 0.75, 0.9, 1.0), (0.5, 0.75, 1.0), (0.5, 1.0))


# Fields that options search, in the order of a grid.
_AXES = {
    "bits": BITS,
    "strategies": STRATEGY,
    "epochs_per_stage": EPOCHS,
    "lrs": LR,
    "weight_decays": WEIGHT_DECAY,
}


@dataclass(frozen=True, kw_only=True)
class SpaceOptions:
    """Search space; parameters that are left out have the value of the run's flags."""

    schedules: tuple[str, ...] = option(
        (), 'Schedules, each the portions of all stages: "0.5,0.75,0.875,1" "0.3,0.6,0.8,1".', is_first=True
    )
    num_stages: tuple[int, ...] = option((), "Numbers of stages of generated schedules.")
    first_portion: tuple[float, ...] = option((), "First portions of generated schedules; default: 0.5.")
    rising: tuple[RisingOrFree, ...] = option(
        (), "Kinds of generated schedules; free (alone): as the search proposes. Default: geometric."
    )
    lrs: tuple[str, ...] = option(
        (), "Learning rates: 0.01 0.02, or a range 1e-4..1e-1, drawn on a log scale.", is_first=True
    )
    epochs_per_stage: tuple[int, ...] = option((), "Epochs of re-training per stage.")
    bits: tuple[int, ...] = option((), "Bits per quantized weight.", is_first=True)
    strategies: tuple[str, ...] = option(
        (), "Strategies for which weights freeze first.", choices=declared(RunConfig)[STRATEGY].choices
    )
    weight_decays: tuple[str, ...] = option((), "Weight decays: 1e-4 5e-4, or a range 1e-5..1e-3.")
    space: str | None = option(
        None, "YAML or JSON file with all of these, by the same names (fields: any other option of a run)."
    )

    def __post_init__(self) -> None:
        check_options(self)


def space_of(options: SpaceOptions) -> Space:
    """Return the search space from flags, or from the file that they name.

    Raises:
        ValueError: Names flag or field, and what is allowed.
    """
    extra: dict[str, Axis] = {}
    path = options.space
    if path is not None:
        if options != SpaceOptions(space=path):
            raise ValueError("--space sets the whole search space: pass either the file or flags")
        options, extra = _read(path)
    axes: dict[str, Axis] = {}
    if (schedules := _schedules(options)) is not None:
        axes[SCHEDULE] = schedules
    for field, name in _AXES.items():
        if values := getattr(options, field):
            axes[name] = _axis(flag_of(field), name, values)
    for name, axis in extra.items():
        if name in axes:
            raise ValueError(f"--space {path}: fields has {name}, which is also set outside of it: leave one out")
        axes[name] = axis
    return Space(axes or {SCHEDULE: Choices(_DEFAULT)})


def _schedules(options: SpaceOptions) -> Axis | None:
    if "free" in options.rising:
        if options.schedules or options.first_portion or len(options.rising) > 1:
            raise ValueError("--rising free needs --num-stages, and no other option for schedules")
        return FreeSchedules(options.num_stages) if options.num_stages else FreeSchedules()
    found = [parse_schedule(text) for text in options.schedules]
    if not options.num_stages and (options.first_portion or options.rising):
        raise ValueError("--first-portion and --rising apply to generated schedules: add --num-stages")
    kinds: list[Rising] = [each for each in options.rising if each != "free"] or ["geometric"]
    for num_stages in options.num_stages:
        for first in options.first_portion or (0.5,):
            found += [generated(num_stages, first, rising) for rising in kinds]
    return Choices(tuple(dict.fromkeys(found))) if found else None


def _axis(where: str, name: str, values: tuple[Any, ...]) -> Axis:
    """Return a list of choices, or a range. Numbers may be text, which YAML makes of 1e-3, too.

    Args:
        where: Flag or field, for messages.
        name: Name of the searched field.
        values: Values as given.

    Raises:
        ValueError: A value is not a number, although the field is.
    """
    is_number = field_type(name) in (float, float | None)
    try:
        if len(values) == 1 and isinstance(values[0], str) and ".." in values[0]:
            low, _, high = values[0].partition("..")
            if high.startswith("."):
                raise ValueError(f"{values[0]!r} has a dot too many: ranges look like 1e-4..1e-1")
            return Range(_number(low), _number(high))
        return Choices(tuple(_number(value) if is_number and isinstance(value, str) else value for value in values))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        alone = " (a range must be the only value)" if ".." in str(text) else ""
        raise ValueError(f"{text!r} is neither a number nor a range such as 1e-4..1e-1{alone}") from None


def _read(path: str) -> tuple[SpaceOptions, dict[str, Axis]]:
    """Return the options in a file, and axes for other fields in it."""
    try:
        text = Path(os.path.expanduser(path)).read_text(encoding="utf-8")
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
        raise ValueError(f"not valid YAML: {error}") from None


def _from_values(values: dict[str, Any]) -> tuple[SpaceOptions, dict[str, Axis]]:
    extra = values.pop("fields", None) or {}
    known = {name: each for name, each in declared(SpaceOptions).items() if name != "space"}
    if not isinstance(extra, Mapping):
        raise ValueError("fields must be an object of names and lists of values")
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise ValueError(f"{unknown[0]} is unknown; allowed are {', '.join(known)}, fields")
    lists: dict[str, Any] = {name: _checked(known[name], value) for name, value in values.items()}
    return SpaceOptions(**lists), {str(name): _field_axis(str(name), value) for name, value in extra.items()}


def _checked(each: Declared, value: Any) -> tuple[Any, ...]:
    """Return an option's values, one or a list, in its field's type; a text may be a number or a list."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ValueError(f"{each.name} has no values")
    (kind,) = {one for one in get_args(each.type) if one is not Ellipsis}
    if each.choices is not None:
        check_choices(each.name, tuple(values), each.choices)
    elif kind is str:
        return tuple(" ".join(map(str, one)) if isinstance(one, list) else str(one) for one in values)
    return tuple(checked(each.name, one, kind) for one in values)


def _field_axis(name: str, value: Any) -> Axis:
    """Return the axis of another field."""
    check_searchable(name)
    values = value if isinstance(value, list) else [value]
    return _axis(name, name, tuple(tuple(each) if isinstance(each, list) else each for each in values))
