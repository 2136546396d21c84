"""Axes of a search space: allowed values of a configuration's field, and how they are drawn."""

import math
import random
from dataclasses import dataclass
from typing import Any, Protocol

from inq_ray.sweep.space.schedules import from_shares


class Drawer(Protocol):
    """Draws numbers by name: at random, or from a search algorithm."""

    def index(self, name: str, count: int) -> int:
        """Return an integer in [0, count)."""
        ...

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        """Return a number in [low, high]."""
        ...


@dataclass(frozen=True)
class Choices:
    """A list of choices.

    Attributes:
        values: At least one, all different.
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a list of values is empty")
        if any(value in self.values[:index] for index, value in enumerate(self.values)):
            raise ValueError(f"a list of values has one twice: {self.values}")

    def draw(self, name: str, drawer: Drawer) -> Any:
        """Return one of the values."""
        return self.values[drawer.index(name, len(self.values))]


@dataclass(frozen=True)
class Range:
    """A number between two bounds.

    Attributes:
        low: Smallest value.
        high: Largest value, above the smallest.
        log: Whether values are drawn on a log scale.
    """

    low: float
    high: float
    log: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a range must ascend, got {self.low:g}..{self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a range on a log scale must be above 0, got {self.low:g}..{self.high:g}")

    def draw(self, name: str, drawer: Drawer) -> float:
        """Return a number in the range with 6 significant digits, so that it can be typed."""
        number = float(f"{drawer.number(name, self.low, self.high, log=self.log):.6g}")
        return min(max(number, self.low), self.high)


@dataclass(frozen=True)
class FreeSchedules:
    """Schedules that rise freely: each stage freezes a fraction of the live weights.

    Attributes:
        num_stages: Allowed numbers of stages.
        least: Smallest fraction.
        most: Largest fraction.
    """

    num_stages: tuple[int, ...] = (3, 4, 5)
    least: float = 0.2
    most: float = 0.8

    def __post_init__(self) -> None:
        if not self.num_stages or min(self.num_stages) < 1:
            raise ValueError(f"--num-stages must be at least 1, got {self.num_stages}")
        if not 0 < self.least < self.most < 1:
            raise ValueError(f"fractions must ascend within (0, 1), got {self.least:g}..{self.most:g}")

    def draw(self, name: str, drawer: Drawer) -> tuple[float, ...]:
        """Return a schedule; its number of stages and each fraction are drawn under their own names."""
        counts = tuple(sorted(set(self.num_stages)))
        count = counts[drawer.index(f"{name}.num_stages", len(counts))]
        names = [f"{name}.share_{stage}" for stage in range(1, count)]
        return from_shares([drawer.number(each, self.least, self.most, log=False) for each in names])


Axis = Choices | Range | FreeSchedules


class RandomDrawer:
    """Draws at random; a draw under one name does not depend on other names.

    Args:
        seed: Seed of all draws.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random: dict[str, random.Random] = {}

    def index(self, name: str, count: int) -> int:
        """Return an integer in [0, count)."""
        return self._of(name).randrange(count)

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        """Return a number in [low, high]."""
        if log:
            return math.exp(self._of(name).uniform(math.log(low), math.log(high)))
        return self._of(name).uniform(low, high)

    def _of(self, name: str) -> random.Random:
        return self._random.setdefault(name, random.Random(f"{self._seed} {name}"))
