"""A search space: an axis for each field of a run's configuration that is searched."""

import dataclasses
import difflib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inq_ray.sweep.axes import Axis, Choices, Drawer, FreeSchedules
from inq_ray.training.config import RunConfig

SCHEDULE = "quantization.iterative_steps"
BITS = "quantization.weight_bits"
STRATEGY = "quantization.strategy"
LR = "training.lr"
EPOCHS = "training.epochs"
WEIGHT_DECAY = "training.weight_decay"

# Values by dotted field names: what one trial has and others have not.
Point = dict[str, Any]

# What all trials have in common: where they begin, what they are measured on, and where they run.
_FIXED = frozenset({"output", "cluster", "network", "plain", "data.data", "data.holdout"})


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        axes: by dotted names of fields of :class:`inq_ray.training.config.RunConfig`, such as "training.lr".
    """

    axes: Mapping[str, Axis]

    def __post_init__(self) -> None:
        if not self.axes:
            raise ValueError("nothing is searched: give --schedules, --lrs, --bits, or a file by --space")
        known = _searchable()
        for name in self.axes:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or [SCHEDULE, LR, BITS]
                raise ValueError(f"{name} cannot be searched; nearest: {', '.join(near)}")
            if isinstance(self.axes[name], FreeSchedules) and name != SCHEDULE:
                raise ValueError(f"only {SCHEDULE} can rise freely, not {name}")

    @property
    def is_finite(self) -> bool:
        """Whether there is a list of all points."""
        return all(isinstance(axis, Choices) for axis in self.axes.values())

    def grid(self) -> Iterator[Point]:
        """All points, the last axis first.

        Raises:
            ValueError: an axis is a range.
        """
        endless = [name for name, axis in self.axes.items() if not isinstance(axis, Choices)]
        if endless:
            raise ValueError(f"--search grid tries lists of values, and {endless[0]} has a range: random or optuna")
        lists = [axis.values for axis in self.axes.values() if isinstance(axis, Choices)]
        for values in itertools.product(*lists):
            yield dict(zip(self.axes, values, strict=True))

    def draw(self, drawer: Drawer) -> Point:
        """A point."""
        return {name: axis.draw(name, drawer) for name, axis in self.axes.items()}

    def check(self, base: RunConfig) -> None:
        """Refuses values that no run could have.

        Raises:
            ValueError: as of the configuration.
        """
        for name, axis in self.axes.items():
            values = axis.values if isinstance(axis, Choices) else ()
            for value in values:
                configured(base, {name: value})


def configured(base: RunConfig, point: Point) -> RunConfig:
    """The configuration of a trial.

    Raises:
        ValueError: a value is not allowed.
    """
    sections: dict[str, dict[str, Any]] = {}
    for name, value in point.items():
        section, _, field = name.partition(".")
        sections.setdefault(section, {})[field] = tuple(value) if isinstance(value, list) else value
    if EPOCHS in point:
        sections["training"] = {"epochs_total": None, "epochs_each": (), **sections["training"]}
    if LR in point:
        sections["training"].setdefault("lr_each", ())
    return base.replace(**sections)


def point_from_json(values: Mapping[str, Any]) -> Point:
    """A point as it was before JSON, which has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def point_key(point: Point) -> str:
    """Text that equal points share."""
    return json.dumps(point, sort_keys=True)


def _searchable() -> list[str]:
    names = []
    for section in dataclasses.fields(RunConfig):
        if section.name in _FIXED or not dataclasses.is_dataclass(section.type):
            continue
        names += [f"{section.name}.{field.name}" for field in dataclasses.fields(section.type)]
    return [name for name in names if name not in _FIXED]
