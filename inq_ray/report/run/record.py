"""A run, as its folder has it."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from inq_ray.export.packed.reader import SUFFIX, PackedFile
from inq_ray.files.shown import shown
from inq_ray.report.files import Files
from inq_ray.report.incidents import Happened, read_incidents
from inq_ray.report.quantity import number
from inq_ray.training.config.json_values import from_dict
from inq_ray.training.report.events import Row

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
# Upper bound of stages and of epochs in a stage.
_MOST = 10**6
# Reasons for lines of metrics that are left out; each line of a foreign file may have its own.
_MOST_REASONS = 3
# Incidents after which a run does not continue by itself.
_ENDS = {"failed": "failed", "stopped": "stopped"}


class Stage(NamedTuple):
    """A stage that a run has begun.

    Attributes:
        number: Number from 1.
        portion: Accumulated fraction of frozen weights.
        quantized: Top-1 right after quantizing, in percent; None if it is not known.
        retrained: Top-1 after the last epoch so far, in percent; None if there was none.
        epochs: Number of epochs so far.
        num_bn_images: Number of images from which BatchNorm's statistics were estimated for `quantized`; None = they
            were the network's own.
    """

    number: int
    portion: float
    quantized: float | None
    retrained: float | None
    epochs: int
    num_bn_images: float | None = None

    @property
    def is_stale(self) -> bool:
        """Whether `quantized` has BatchNorm's statistics of the weights before, if the network has BatchNorm."""
        return self.num_bn_images is None and self.retrained not in (None, self.quantized)

    @property
    def top1(self) -> float | None:
        """Top-1 at the end of the stage, or so far, in percent."""
        return self.quantized if self.retrained is None else self.retrained


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run's folder contains.

    Attributes:
        files: The folder, with a line for each part that is missing or damaged.
        sizes: Size in bytes of each file by name.
        config: Configuration as JSON, by section; empty if it is missing.
        rows: Metrics in order; one row per stage and epoch.
        incidents: Incidents in order.
        summary: Summary; empty if the run is not finished.
        packed: Contents of the packed file; None if it is missing or damaged.
    """

    files: Files
    sizes: Mapping[str, int]
    config: Mapping[str, Any]
    rows: tuple[Row, ...]
    incidents: tuple[Happened, ...]
    summary: Mapping[str, Any]
    packed: PackedFile | None

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.files.location.path.rstrip("/").rpartition("/")[2]

    @property
    def status(self) -> str:
        """One of "finished", "failed", "stopped" and "unfinished"."""
        if self.summary:
            return "finished"
        kinds = [each.kind for each in self.incidents if each.kind in (*_ENDS, "resumed", "restarted")]
        return _ENDS.get(kinds[-1], "unfinished") if kinds else "unfinished"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Stages that have begun; from the summary if there are no metrics."""
        numbers = sorted({row.stage for row in self.rows if row.stage > 0})
        if not numbers:
            return tuple(_stages_of_summary(self.summary))
        return tuple(_stage(number, [row for row in self.rows if row.stage == number]) for number in numbers)

    @property
    def float_top1(self) -> float | None:
        """Top-1 of the float network in percent; None if it was not measured."""
        measured = [row.top1 for row in self.rows if row.stage == 0]
        return measured[-1] if measured else number(self.summary.get("float_top1"))

    @property
    def top1(self) -> float | None:
        """Top-1 of the last measurement, in percent."""
        return self.rows[-1].top1 if self.rows else number(self.summary.get("top1"))

    @property
    def packed_bytes(self) -> int | None:
        """Size of the packed file; None if there is none that can be used."""
        return next((size for name, size in self.sizes.items() if name.endswith(SUFFIX)), None) if self.packed else None

    def option(self, section: str, name: str) -> Any:
        """Return an option's value, of any type; None if it is missing."""
        found = self.config.get(section)
        return found.get(name) if isinstance(found, dict) else None

    def fact(self, *names: str) -> Any:
        """Return a value of the summary by the names on the way to it; None if it is missing."""
        found: Any = self.summary
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


def read_run(files: Files) -> RunRecord:
    """Return what the folder of a run contains; parts that cannot be used are noted in `files`."""
    sizes = files.sizes()
    summary = files.object_of(SUMMARY, why_missing="the run is not finished") or {}
    found = files.object_of(CONFIG, why_missing="the configuration is not known")
    stored = summary.get("config")
    rows = tuple(_rows(files))
    is_quantized = bool(summary.get("stages"))
    return RunRecord(
        files=files,
        sizes=sizes,
        config=found or (stored if isinstance(stored, dict) else {}),
        rows=rows,
        incidents=read_incidents(files),
        summary=summary,
        packed=files.packed(list(sizes)) if is_quantized or any(name.endswith(SUFFIX) for name in sizes) else None,
    )


def _rows(files: Files) -> Iterator[Row]:
    """Yield the metrics in order; if an epoch was trained twice, after an interruption, the later row counts."""
    found: dict[tuple[int, int], Row] = {}
    odd: dict[str, None] = {}
    for line in files.lines_of(METRICS, why_missing="accuracy, loss and speed of the epochs are not known"):
        if line.get("loss") is None:
            line["loss"] = math.nan  # it was not finite
        try:
            row = _checked(from_dict(Row, line, where=""))
        except ValueError as error:
            odd[str(error)] = None
            continue
        found[row.stage, row.epoch] = row
    for reason in itertools.islice(odd, _MOST_REASONS):
        files.note(f"{METRICS} has lines that no run writes, which are left out: {reason}")
    for place in sorted(found):
        yield found[place]


def _checked(row: Row) -> Row:
    """Return a row of metrics that a run may have written.

    Raises:
        ValueError: A number is outside of its range.
    """
    counts = (row.stage, row.epoch)
    if not all(0 <= count < _MOST for count in counts) or not 0 <= row.portion <= 1:
        raise ValueError(f"stage {row.stage}, epoch {row.epoch} and portion {row.portion:g} are not possible")
    if not all(0 <= accuracy <= 100 for accuracy in (row.top1, row.top5)):
        raise ValueError(f"top-1 {row.top1:g} and top-5 {row.top5:g} are not possible")
    return row


def _stage(number_of_stage: int, rows: list[Row]) -> Stage:
    trained = [row for row in rows if row.epoch > 0]
    first = rows[0]
    return Stage(
        number=number_of_stage,
        portion=first.portion,
        quantized=first.top1 if first.epoch == 0 else None,
        retrained=trained[-1].top1 if trained else None,
        epochs=len(trained),
        num_bn_images=first.num_bn_images,
    )


def _stages_of_summary(summary: Mapping[str, Any]) -> Iterator[Stage]:
    stages = summary.get("stages")
    for index, stage in enumerate(stages if isinstance(stages, list) else [], start=1):
        portion = number(stage.get("portion")) if isinstance(stage, dict) else None
        if portion is not None:
            top1, num_bn_images = number(stage.get("top1")), number(stage.get("num_bn_images"))
            yield Stage(index, portion, number(stage.get("top1_quantized")), top1, 0, num_bn_images)


def described(record: RunRecord) -> str:
    """Return network, data and bits of a run in a line."""
    arch, data = record.option("network", "arch"), record.option("data", "data")
    bits, is_plain = record.option("quantization", "weight_bits"), record.config.get("plain") is True
    parts = [shown(arch) if arch else "", f"on {shown(str(data).rstrip('/').rpartition('/')[2])}" if data else ""]
    others = ", others in some layers" if record.option("quantization", "layer_bits") else ""
    kind = "plain training" if is_plain else f"{shown(bits)} bits per weight{others}" if bits else ""
    return ", ".join(part for part in (" ".join(parts).strip(), kind) if part)
