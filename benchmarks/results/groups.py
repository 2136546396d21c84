"""Runs that differ only in their seed, taken together."""

import dataclasses
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from benchmarks.results.record import Record, fields_of
from inq_ray.training.config import RunConfig


class Group:
    """Runs of one configuration.

    Attributes:
        records: By rising seed.
        first: The first of them.
        key: Network, data and negated bits.
        fields: Everything that determines the runs but the seed, as text by "section.field".
        top1: Top-1 of each run in percent.
        change: Mean change of top-1 from the float network, in points.
        seeds: Seeds as text.
    """

    def __init__(self, records: list[Record]) -> None:
        self.records, self.first = records, records[0]
        self.key = (self.first["network"], self.first["data"], -self.first["bits"])
        self.fields = _fields(self.first)
        self.top1 = [record["top1"] for record in records]
        self.change = fmean(record["top1"] - record["float_top1"] for record in records)
        self.seeds = ", ".join(str(record["seed"]) for record in records)

    @property
    def is_stale(self) -> bool:
        """Whether a stage was measured right after quantizing with stale statistics of BatchNorm, as all once were."""
        return any(
            epochs and stage.get("num_bn_images") is None
            for record in self.records
            for stage, epochs in zip(record["stages"], record["epochs"]["by_stage"], strict=True)
        )


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Return the mean ± sample standard deviation as text, or the only value."""
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{fmean(values):{form}}{deviation}"


def ends(values: Sequence[float]) -> str:
    """Return the smallest and the largest value as text; nothing if there is only one."""
    return f"{min(values):.2f} to {max(values):.2f}" if len(values) > 1 else ""


def groups_of(records: Sequence[Record]) -> list[Group]:
    """Return the groups of records by network, data and falling bits."""
    together: dict[frozenset[tuple[str, str]], list[Record]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        together.setdefault(frozenset(_fields(record).items()), []).append(record)
    return sorted(map(Group, together.values()), key=lambda group: (group.key, group.first["name"]))


def main_groups(groups: Sequence[Group]) -> list[Group]:
    """Return the groups of the main table: a random partition is compared in a table of its own."""
    return [group for group in groups if group.first["strategy"] != "random"]


def main_of_each(groups: Sequence[Group]) -> list[Group]:
    """Return for each network, data and bits the group with the most seeds, of these the one with the highest mean."""
    best: dict[tuple[Any, ...], Group] = {}
    for group in main_groups(groups):
        best[group.key] = max(best.get(group.key, group), group, key=lambda each: (len(each.top1), fmean(each.top1)))
    return list(best.values())


def differences(group: Group, others: Sequence[Group]) -> str:
    """Return the fields in which the other groups differ, with this group's values."""
    names = [name for name in group.fields if len({other.fields[name] for other in others}) > 1]
    return ", ".join(f"{name.rpartition('.')[2]} {group.fields[name]}" for name in names)


def _fields(record: Record) -> dict[str, str]:
    """Return the values by name as text; fields that the run's version did not have yet have their default."""
    values = fields_of(dataclasses.asdict(RunConfig())) | fields_of(record["config"])
    ignored = ("output.", "training.seed")
    return {name: _text(value) for name, value in values.items() if not name.startswith(ignored)}


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
