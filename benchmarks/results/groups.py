"""Runs that differ in their seed alone, taken together."""

import dataclasses
import json
import statistics
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchmarks.results.record import Record
from inq_ray.training.config import RunConfig


@dataclass(frozen=True)
class Spread:
    """Mean and spread of a figure over seeds.

    Attributes:
        values: one a seed.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.values)

    def text(self, form: str = ".2f") -> str:
        """The mean ± sample standard deviation, or the one value there is."""
        if len(self.values) == 1:
            return f"{self.mean:{form}}"
        return f"{self.mean:{form}} ± {statistics.stdev(self.values):.2f}"

    def ends(self) -> str:
        """The least and the largest; empty where there is one."""
        return "" if len(self.values) == 1 else f"{min(self.values):.2f} to {max(self.values):.2f}"


class Group:
    """Records of one configuration, by rising seed.

    Args:
        records: at least one.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = sorted(records, key=lambda record: (record["seed"], record["name"]))
        self.first = self.records[0]

    @cached_property
    def fields(self) -> dict[str, str]:
        """What makes a run what it is, by section.field; not its seed, nor where its result went.

        A field that the run's version did not have yet has its default.
        """
        found: dict[str, str] = {}
        for section, values in dataclasses.asdict(RunConfig()).items():
            if isinstance(values, dict) and section != "output":
                had = values | self.first["config"][section]
                found |= {f"{section}.{field}": _word(value) for field, value in had.items()}
        del found["training.seed"]
        return found

    @property
    def key(self) -> tuple[Any, ...]:
        """Network, data and bits."""
        return self.first["network"], self.first["data"], -self.first["bits"]

    @property
    def num_seeds(self) -> int:
        """How many runs."""
        return len(self.records)

    @property
    def seeds(self) -> str:
        """Their seeds."""
        return ", ".join(str(record["seed"]) for record in self.records)

    @property
    def top1(self) -> Spread:
        """Top-1 in percent."""
        return self.of(lambda record: record["top1"])

    @property
    def change(self) -> Spread:
        """Top-1 against the float network, in points."""
        return self.of(lambda record: record["top1"] - record["float_top1"])

    @property
    def minutes(self) -> float:
        """Mean of the whole run."""
        return statistics.fmean(record["seconds"] for record in self.records) / 60

    def of(self, figure: Any) -> Spread:
        """A figure of each record."""
        return Spread(tuple(figure(record) for record in self.records))


def groups_of(records: Iterable[Record]) -> list[Group]:
    """Records that differ in seed and output alone together; by network, data, falling bits, and then as they come."""
    together: dict[str, list[Record]] = {}
    for record in records:
        together.setdefault(json.dumps(Group([record]).fields, sort_keys=True), []).append(record)
    return sorted((Group(each) for each in together.values()), key=lambda group: group.key)


def main_groups(groups: Sequence[Group]) -> list[Group]:
    """Those of the main table: a random partition is there to be compared with, in a table of its own."""
    return [group for group in groups if group.first["strategy"] != "random"]


def main_of_each(groups: Sequence[Group]) -> list[Group]:
    """For each network, data and bits the group with most seeds, and of these with the highest mean."""
    best: dict[tuple[Any, ...], Group] = {}
    for group in main_groups(groups):
        other = best.get(group.key)
        if other is None or (group.num_seeds, group.top1.mean) > (other.num_seeds, other.top1.mean):
            best[group.key] = group
    return list(best.values())


def differences(group: Group, others: Sequence[Group], of: Container[str] | None = None) -> str:
    """The fields in which groups are not alike, as this one has them; of those fields alone, if any are given."""
    names = [name for name in group.fields if len({other.fields[name] for other in others}) > 1]
    return ", ".join(f"{name.rpartition('.')[2]} {group.fields[name]}" for name in names if of is None or name in of)


def _word(value: Any) -> str:
    """A field's value, short."""
    if isinstance(value, list | tuple):
        return ",".join(map(_word, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
