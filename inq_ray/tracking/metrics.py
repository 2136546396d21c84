"""Events and configurations as the flat names and numbers that trackers take."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol

from inq_ray.training.report.events import Row

Scalar = bool | int | float | str

_VALIDATED = frozenset({"top1", "top5", "loss"})


class Tracker(Protocol):
    """Where metrics go; any method may raise anything, or take long."""

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Takes finite numbers by name, after so many epochs of the whole run."""

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        """Ends the run, with its summary, or as failed where there is none; the last call."""


def row_metrics(row: Row) -> dict[str, float]:
    """A row's numbers by name; what it lacks, and what is infinite or not a number, is left out.

    Names are those of the fields, but train_loss is "train/loss", and top1 "validation/top1"; right after quantizing,
    before any re-training, "quantized/top1", so that a stage's drop is a curve of its own.
    """
    values = dataclasses.asdict(row)
    is_quantized = row.stage > 0 and row.epoch == 0
    del values["epoch"]
    return {
        _metric_name(name, "quantized" if is_quantized else "validation"): float(value)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    }


def _metric_name(field: str, validated: str) -> str:
    if field in _VALIDATED:
        return f"{validated}/{field}"
    for part in ("train", "validation"):
        if field.startswith(f"{part}_"):
            return f"{part if part == 'train' else validated}/{field.removeprefix(f'{part}_')}"
    return field


def flat(values: Any, prefix: str = "") -> dict[str, Scalar]:
    """Nested values by dotted names: {"training": {"lr": 0.1}} -> {"training.lr": 0.1}.

    Lists of objects are numbered from 0, other lists become text. None and infinite numbers become text too.
    """
    if isinstance(values, dict):
        items = values.items()
    elif isinstance(values, list | tuple) and values and all(isinstance(value, dict) for value in values):
        items = {str(index): value for index, value in enumerate(values)}.items()
    else:
        return {prefix: _scalar(values)}
    result: dict[str, Scalar] = {}
    for name, value in items:
        result |= flat(value, f"{prefix}.{name}" if prefix else name)
    return result


def _scalar(value: Any) -> Scalar:
    if isinstance(value, list | tuple):
        return " ".join(str(each) for each in value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float | str) else str(value)


def numbers(values: Mapping[str, Scalar]) -> dict[str, float]:
    """Of flat values those that are numbers."""
    return {name: value for name, value in values.items() if isinstance(value, int | float) and type(value) is not bool}
