"""Events and configurations as the flat names and numbers that trackers need."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol

from inq_ray.training.report.events import Row

Scalar = bool | int | float | str

_VALIDATED = frozenset({"top1", "top5", "loss"})


class Tracker(Protocol):
    """Destination of metrics; any method may raise anything, or take long."""

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Log finite numbers by name; `epoch` is the number of epochs done in the whole run."""

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        """End the run, with its summary, or as failed if it is None; the last call."""


def row_metrics(row: Row) -> dict[str, float]:
    """Return a row's numbers by name; missing, infinite and NaN values are left out.

    Names are those of the fields, except that train_loss is "train/loss" and top1 is "validation/top1"; right after
    quantizing, before re-training, "quantized/top1", so that the drop in each stage is a curve of its own.
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
    """Flatten nested values by dotted names: {"training": {"lr": 0.1}} -> {"training.lr": 0.1}.

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
    """Return the flat values that are numbers."""
    return {name: value for name, value in values.items() if isinstance(value, int | float) and type(value) is not bool}
