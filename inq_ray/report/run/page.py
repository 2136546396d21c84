"""Page of a run: a table of sections, each made from what the run's folder has."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from inq_ray.export.table import Sizes, TensorRow, rows_of, sizes_of
from inq_ray.files.shown import counted
from inq_ray.report.configuration import configuration
from inq_ray.report.html import Html, element, joined, table
from inq_ray.report.incidents import incident_table
from inq_ray.report.page import figure, key_figures, missing, page, section, side_by_side
from inq_ray.report.quantity import change, number, percent, share, size
from inq_ray.report.run.charts import (
    Course,
    accuracy_chart,
    errors_chart,
    loss_chart,
    rate_chart,
    sizes_chart,
    speed_chart,
    waits_chart,
)
from inq_ray.report.run.facts import digests, environment
from inq_ray.report.run.layer_charts import MOST_LAYERS, exponents_chart, frozen_chart
from inq_ray.report.run.layers import Layer, frozen_by_stage, layers_of_result
from inq_ray.report.run.record import RunRecord, described
from inq_ray.report.run.rounding import Stored
from inq_ray.report.run.sensitivity import read_sensitivity, sensitivity_chart

_QUANTIZED = Html('<span class="a" aria-hidden="true">○</span> right after quantizing')
_STALE = " with BatchNorm's statistics of before, which are stale"
_RETRAINED = Html('<span class="a" aria-hidden="true">●</span> after re-training')


@dataclass(frozen=True)
class Findings:
    """A run, and what is computed from it for several sections.

    Attributes:
        record: The run.
        stored: What its checkpoints show.
    """

    record: RunRecord
    stored: Stored

    @cached_property
    def rows(self) -> tuple[TensorRow, ...]:
        """Rows of the packed file's tensors; empty if there is no packed file."""
        return () if self.record.packed is None else rows_of(self.record.packed)

    @cached_property
    def sizes(self) -> Sizes | None:
        """Sizes of the result; None if there is no packed file."""
        return None if self.record.packed is None else sizes_of(self.record.packed, self.rows)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Quantized tensors."""
        return self.stored.layers if self.record.packed is None else layers_of_result(self.record.packed)

    @cached_property
    def charted(self) -> tuple[Layer, ...]:
        """Quantized tensors that charts show: all, or the largest ones, in the network's order."""
        if len(self.layers) <= MOST_LAYERS:
            return self.layers
        least = sorted((layer.num_weights for layer in self.layers), reverse=True)[MOST_LAYERS - 1]
        return tuple(layer for layer in self.layers if layer.num_weights >= least)[:MOST_LAYERS]


def run_page(record: RunRecord, stored: Stored) -> str:
    """Return the page of a run.

    Args:
        record: The run.
        stored: What its checkpoints show.
    """
    findings = Findings(record, stored)
    shown = [make(findings) for make in SECTIONS]  # before the problems are listed
    head = element("header", element("h1", record.name), element("p", described(record), class_="lead"))
    digest = record.fact("digest")
    line = element("p", "digest ", element("code", str(digest)), class_="note") if digest else None
    return page(record.name, [head, key_figures(_key(findings)), line, missing(record.files.problems), *shown])


def _key(findings: Findings) -> list[tuple[str, str, str]]:
    record, sizes, packed_bytes = findings.record, findings.sizes, findings.record.packed_bytes
    figures = []
    if record.top1 is not None:
        before = record.float_top1
        about = f"float {percent(before)} %, {change(record.top1, before)} points" if before is not None else ""
        figures.append(("top-1", f"{percent(record.top1)} %", about))
    if sizes is not None and packed_bytes:
        ratio = f"{sizes.as_float / packed_bytes:.1f} times smaller than float32, {size(sizes.as_float)}"
        figures.append(("packed file", size(packed_bytes), ratio))
    weights = sum(layer.num_weights for layer in findings.layers)
    bits = sorted({layer.row.bits for layer in findings.layers if layer.row.bits})
    if bits and findings.rows:
        values = sum(row.num_values for row in findings.rows)
        text = f"{bits[0]}" if len(bits) == 1 else f"{bits[0]} to {bits[-1]}"
        figures.append(("bits per weight", text, f"{share(weights, values)} of {values:,} values are 0 or ±2^k"))
    elif bits:
        frozen = sum(layer.row.num_values for layer in findings.layers)
        figures.append(("frozen so far", share(frozen, weights), f"{frozen:,} of {weights:,} weights"))
    figures.append(_state(record))
    return figures


def _state(record: RunRecord) -> tuple[str, str, str]:
    """Return whether the run is finished, and its result verified."""
    if record.status != "finished":
        last = record.incidents[-1].text if record.incidents and record.status != "unfinished" else ""
        return "run", record.status, last or "the same command with the same --name continues it"
    weights = number(record.fact("verification", "num_weights"))
    if not weights:
        return "run", "finished", "without quantization"
    if record.packed is None:
        return "run", "finished", f"{weights:,.0f} weights were verified at its end; its packed file cannot be used"
    if record.packed.digest != record.fact("verification", "digest"):
        return "result", "differs", "the packed file does not have the digest that was verified at the end of the run"
    return "result", "verified", f"{weights:,.0f} weights equal their codes, bit for bit"


def _accuracy(findings: Findings) -> Html | None:
    record = findings.record
    stages, before = record.stages, record.float_top1
    if not stages:
        return None
    measured = record.fact("measured_on") or "validation images"
    quantized = joined((_QUANTIZED, _STALE if any(stage.is_stale for stage in stages) else ""))
    caption = joined(("In percent, on the ", str(measured), ". ", quantized, ", ", _RETRAINED, ", ◆ float."))
    rows = [
        (
            str(stage.number),
            f"{stage.portion:g}",
            percent(stage.quantized),
            percent(stage.retrained),
            change(stage.top1, before),
        )
        for stage in stages
    ]
    if before is not None:
        rows.insert(0, ("float", "0", "", percent(before), ""))
    heads = ("stage", "portion", "quantized", "re-trained", "change")
    stage_table = table(heads, rows, texts=("stage",), label="Accuracy of each stage")
    return section(
        "Accuracy",
        side_by_side(
            figure("Top-1 over the portion of frozen weights.", caption, accuracy_chart(stages, before)),
            figure("Top-1 of each stage.", "In percent; change against float in points.", stage_table),
        ),
    )


def _training(findings: Findings) -> Html | None:
    course = Course(findings.record.rows)
    if not course.num_epochs:
        return None
    stages = "Vertical lines: a stage begins."
    loss = Html('<span class="a">—</span> training, <span class="b">┄</span> validation. ' + stages)
    waits = Html('Of the training time. <span class="a">—</span> for images, <span class="b">┄</span> for gradients.')
    charts = [
        figure("Loss.", loss, loss_chart(course)),
        figure("Learning rate.", "At the start of each epoch.", rate_chart(course)),
    ]
    if course.values("images_per_second"):
        charts.append(figure("Images per second.", "All workers together.", speed_chart(course)))
    if course.waits("data_seconds") or course.waits("network_seconds"):
        charts.append(figure("Waiting, %.", waits, waits_chart(course)))
    return section("Training", side_by_side(*charts))


def _layers(findings: Findings) -> Html | None:
    record, layers = findings.record, findings.charted
    if not layers:
        return None
    portions = [stage.portion for stage in record.stages]
    few = f" The {len(layers)} largest of {len(findings.layers)}." if len(layers) < len(findings.layers) else ""
    frozen = figure(
        "Weights frozen in each stage.",
        f"The first stage has the strongest color; outlined weights are live.{few}",
        frozen_chart(layers, frozen_by_stage(layers, portions)),
    )
    exponents = figure(
        "Powers of two.",
        f"How many weights of a layer are 0 or ±2^k; the strongest color is the most frequent one of its row.{few}",
        exponents_chart(layers),
    )
    errors = [(layer.row.name, 100 * findings.stored.errors[layer.row.name].relative)
              for layer in layers if layer.row.name in findings.stored.errors]  # fmt: skip
    errors = [(name, error) for name, error in errors if math.isfinite(error)]
    stages = " ".join(map(str, findings.stored.stages))
    error = None if not errors else figure(
        "Quantization error.",
        "Root mean square of the change when weights were frozen, relative to that of the weights; from checkpoints "
        f"of stages {stages}.{few}",
        errors_chart(errors),
    )  # fmt: skip
    sizes = findings.sizes
    by_size = None if sizes is None or not record.packed_bytes else figure(
        "Size.",
        "int8: a byte for each quantized weight. Entropy limit: the least that a code of single weights needs. "
        "Both with the float tensors.",
        sizes_chart(
            [
                ("float32", sizes.as_float),
                ("int8", sizes.as_int8),
                ("packed file", record.packed_bytes),
                ("entropy limit", sizes.limit),
            ]
        ),
    )  # fmt: skip
    return section(
        "Layers and sizes", side_by_side(frozen, exponents), side_by_side(error, by_size), _layer_table(findings)
    )


def _layer_table(findings: Findings) -> Html:
    has_bytes, errors = bool(findings.rows), findings.stored.errors
    heads = ["tensor", "shape", "weights", "bits", "exponents", "zeros", "entropy, bits"]
    heads += [*(["error, %"] if errors else []), *(["bytes"] if has_bytes else [])]
    rows = [_cells(layer, findings, has_bytes=has_bytes) for layer in findings.layers]
    if has_bytes:
        rest = [row for row in findings.rows if row.bits is None]
        values, num_bytes = sum(row.num_values for row in rest), sum(row.num_bytes for row in rest)
        blank = [""] * (len(heads) - 4)
        rows.append([counted(len(rest), "float tensor"), "", f"{values:,}", *blank, f"{num_bytes:,}"])
    return element(
        "details",
        element("summary", f"Table of {counted(len(findings.layers), 'quantized tensor')}"),
        table(heads, rows, texts=("tensor", "shape"), label="Quantized tensors"),
        open="",
    )


def _cells(layer: Layer, findings: Findings, *, has_bytes: bool) -> list[str]:
    row, errors = layer.row, findings.stored.errors
    exponents = "" if row.exponents is None else f"{row.exponents[0]} to {row.exponents[1]}"
    cells = [
        row.name,
        "x".join(map(str, row.shape)) if has_bytes else "",
        f"{layer.num_weights:,}",
        f"{row.bits}" if row.levels == "paper" else f"{row.bits} ({row.levels})",
        exponents.replace("-", "\u2212"),
        share(row.num_zero, row.num_values),
        f"{row.entropy:.2f}",
    ]
    if errors:
        cells.append(percent(100 * errors[row.name].relative) if row.name in errors else "")
    return [*cells, f"{row.num_bytes:,}"] if has_bytes else cells


def _sensitivity(findings: Findings) -> Html | None:
    found = read_sensitivity(findings.record.files)
    if found is None:
        return None
    layers, bits = found.layers[:MOST_LAYERS], found.bits
    few = f" The {len(layers)} most sensitive of {len(found.layers)}." if len(layers) < len(found.layers) else ""
    heads = ["tensor", *(f"{num_bits} bits" for num_bits in bits)]
    rows = [[layer.name, *(_nats(layer.divergences.get(num_bits)) for num_bits in bits)] for layer in found.layers]
    proposed = element("p", "Proposed: ", element("code", found.proposal), class_="note") if found.proposal else None
    return section(
        "Sensitivity",
        side_by_side(
            figure(
                "One layer quantized alone.",
                "How far the outputs move from the float network's without re-training, the most sensitive layer on "
                f"top. Numbers at the first row: bits of the mark.{few}",
                sensitivity_chart(layers, bits),
            ),
            figure(
                "Divergence, nats.",
                f"Measured on {found.images or 'some images'}.",
                table(heads, rows, texts=("tensor",), label="Divergence of each layer"),
            ),
        ),
        proposed,
    )


def _nats(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _facts(findings: Findings) -> Html:
    record = findings.record
    parts: Sequence[Html | None] = (
        section("Incidents", incident_table(record.incidents)),
        configuration(record.config),
        environment(record),
        digests(record),
    )
    return joined(parts)


# The sections of the page, in order; each returns None if the run has nothing for it.
SECTIONS: tuple[Callable[[Findings], Html | None], ...] = (_accuracy, _training, _layers, _sensitivity, _facts)
