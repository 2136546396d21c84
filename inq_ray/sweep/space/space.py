"""A search space: an axis for each searched field of a run's configuration."""

import difflib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inq_ray.sweep.space.axes import Axis, Choices, Drawer, FreeSchedules, Range
from inq_ray.sweep.space.schedules import from_shares
from inq_ray.training.config import RunConfig, field_type, field_value
from inq_ray.training.config.option import declared
from inq_ray.training.flags.start import with_values

SCHEDULE = "quantization.iterative_steps"
BITS = "quantization.weight_bits"
LAYER_BITS = "quantization.layer_bits"
STRATEGY = "quantization.strategy"
LR = "training.lr"
EPOCHS = "training.epochs"
WEIGHT_DECAY = "training.weight_decay"

# Values by dotted field names, which distinguish a trial from others.
Point = dict[str, Any]


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        axes: Axes by dotted names of fields of :class:`inq_ray.training.config.RunConfig`, such as "training.lr".
    """

    axes: Mapping[str, Axis]

    def __post_init__(self) -> None:
        if not self.axes:
            raise ValueError("nothing is searched: pass --schedules, --lrs, --bits, or a file with --space")
        for name in self.axes:
            check_searchable(name)
        object.__setattr__(self, "axes", {name: _typed(name, axis) for name, axis in self.axes.items()})

    def grid(self) -> Iterator[Point]:
        """Yield all points; the last axis varies fastest.

        Raises:
            ValueError: An axis is a range.
        """
        endless = [name for name, axis in self.axes.items() if not isinstance(axis, Choices)]
        if endless:
            how = "rises freely" if isinstance(self.axes[endless[0]], FreeSchedules) else "is a range"
            raise ValueError(
                f"--search grid needs lists of values, but {endless[0]} {how}: use --search random or optuna"
            )
        lists = [axis.values for axis in self.axes.values() if isinstance(axis, Choices)]
        for values in itertools.product(*lists):
            yield dict(zip(self.axes, values, strict=True))

    def draw(self, drawer: Drawer) -> Point:
        """Return a drawn point."""
        return {name: axis.draw(name, drawer) for name, axis in self.axes.items()}

    def check(self, base: RunConfig) -> None:
        """Refuse values that no run could have, alone or together.

        Raises:
            ValueError: The configuration's error.
        """
        edges = {name: _edges(axis) for name, axis in self.axes.items()}
        first = {name: values[0] for name, values in edges.items()}
        configured(base, first)
        for name in first:
            for value in edges[name]:
                configured(base, {**first, name: value})
        for one, other in itertools.combinations(first, 2):
            for mine, yours in itertools.product(edges[one], edges[other]):
                configured(base, {**first, one: mine, other: yours})

    def samples(self) -> list[Point]:
        """Return points that include every value that a configuration accepts but network or data may not fit."""
        edges = {name: _edges(axis) for name, axis in self.axes.items()}
        first = {name: values[0] for name, values in edges.items()}
        others = [
            {**first, name: value}
            for name in first
            if not declared(RunConfig)[name].option.fits_all
            for value in edges[name][1:]
        ]
        return [first, *others]


def _edges(axis: Axis) -> tuple[Any, ...]:
    """Return values of an axis that must be allowed for all to be; for free schedules one per number of stages."""
    if isinstance(axis, Choices):
        return axis.values
    if isinstance(axis, Range):
        return (axis.low, axis.high)
    return tuple(from_shares([axis.least] * (count - 1)) for count in sorted(set(axis.num_stages)))


def _typed(name: str, axis: Axis) -> Axis:
    """Return the axis with values of its field's type.

    Raises:
        ValueError: Values have another type.
    """
    if isinstance(axis, FreeSchedules):
        if name != SCHEDULE:
            raise ValueError(f"only {SCHEDULE} can rise freely, not {name}")
        return axis
    if isinstance(axis, Range):
        if field_type(name) not in (float, float | None):
            raise ValueError(f"{name} takes whole values, so it cannot be a range: use a list")
        return axis
    return Choices(tuple(field_value(name, value) for value in axis.values))


def configured(base: RunConfig, point: Point) -> RunConfig:
    """Return the configuration of a trial.

    Raises:
        ValueError: A value is not allowed.
    """
    options = declared(RunConfig)
    replaced = {
        f"{options[name].section}.{field}": options[f"{options[name].section}.{field}"].default
        for name in point
        for field in options[name].option.replaces
    }
    return with_values(base, replaced | {name: field_value(name, value) for name, value in point.items()})


def point_key(point: Point) -> str:
    """Return a text that is the same for equal points, including ones from JSON, which has no tuples."""
    return json.dumps(point, sort_keys=True)


def check_searchable(name: str) -> None:
    """Refuse options that cannot differ between trials.

    Raises:
        ValueError: Names the nearest ones that can, or the remedy.
    """
    options = declared(RunConfig)
    if name in options and isinstance(reason := options[name].option.sweep, str):
        raise ValueError(f"{name} cannot be searched: {reason}")
    known = [each.name for each in options.values() if each.option.sweep is True]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or [SCHEDULE, LR, BITS]
        raise ValueError(f"{name} cannot be searched; nearest: {', '.join(near)}")
