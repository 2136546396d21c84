"""Charts of a run."""

import math
from collections.abc import Sequence
from typing import Any

from inq_ray.report.chart import (
    ACCENT,
    GRID,
    INK,
    MUTED,
    PAPER,
    SECOND,
    chart,
    height_of,
    margin_of,
    name_rows,
)
from inq_ray.report.html import Html
from inq_ray.report.quantity import percent, size
from inq_ray.report.run.record import Stage
from inq_ray.sweep.parallel_plot import lower_fence
from inq_ray.training.report.events import Row

# Style of the second line of a chart, which differs from the first in gray, too.
_SECOND_LINE: dict[str, Any] = {"color": SECOND, "linestyle": (0, (3, 2)), "markerfacecolor": PAPER, "linewidth": 1.2}


def accuracy_chart(stages: Sequence[Stage], float_top1: float | None) -> Html:
    """Return top-1 over the accumulated portion, after quantizing and after re-training."""

    def draw(axes: Any) -> None:
        path = [] if float_top1 is None else [(0.0, float_top1)]
        for stage in stages:
            path += [(stage.portion, value) for value in (stage.quantized, stage.retrained) if value is not None]
        axes.plot(*zip(*path, strict=True), color=ACCENT, linewidth=1.0, alpha=0.6, zorder=2)
        for kind, fill in (("quantized", PAPER), ("retrained", ACCENT)):
            points = [(stage.portion, getattr(stage, kind)) for stage in stages if getattr(stage, kind) is not None]
            for portion, top1 in points:
                axes.plot(
                    portion, top1, "o", color=ACCENT, markerfacecolor=fill, markeredgewidth=1.4, zorder=3, clip_on=False
                )
        if float_top1 is not None:
            axes.axhline(float_top1, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
            axes.plot(0, float_top1, "D", color=INK, markersize=4, zorder=3, clip_on=False)
        limit(axes, [top1 for _, top1 in path])
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.set_xlabel("accumulated portion of frozen weights", color=MUTED)
        axes.grid(axis="y")

    return chart("accuracy", "Top-1 in percent over the accumulated portion of frozen weights", draw, height=230)


def limit(axes: Any, values: Sequence[float]) -> None:
    """Limit the axis to values that are not outliers, with space around them; note how many are below."""
    if not values:
        return
    low, high = lower_fence(values), max(values)
    space = 0.08 * (high - low) or 0.5
    axes.set_ylim(low - space, high + space)
    num_below = sum(value < low for value in values)
    if num_below:
        text = f"{num_below} value{'s' * (num_below > 1)} below, down to {min(values):.2f}"
        axes.text(0.01, 0.03, text, transform=axes.transAxes, color=MUTED)


class Course:
    """Metrics of a run's epochs, over all epochs of the run.

    Args:
        rows: Metrics in order.

    Attributes:
        begins: Number of epochs before each stage.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.begins: list[int] = []
        self._rows: list[tuple[int, Row]] = []
        done, stage = 0, 0
        for row in rows:
            if row.stage != stage:
                stage = row.stage
                self.begins.append(done)
            done += row.epoch > 0
            self._rows.append((done, row))

    @property
    def num_epochs(self) -> int:
        """Number of epochs."""
        return self._rows[-1][0] if self._rows else 0

    def values(self, name: str) -> list[tuple[int, float]]:
        """Return (epochs so far, value) of a field of :class:`Row`, if it is known and finite."""
        found = [(epoch, getattr(row, name)) for epoch, row in self._rows]
        return [(epoch, value) for epoch, value in found if value is not None and math.isfinite(value)]

    def waits(self, name: str) -> list[tuple[int, float]]:
        """Return (epochs so far, percent of the training time) of a field of :class:`Row` in seconds."""
        found = [(epoch, getattr(row, name), row.train_seconds) for epoch, row in self._rows]
        return [(epoch, 100 * waited / seconds) for epoch, waited, seconds in found if seconds and waited is not None]

    def draw(self, axes: Any, lines: Sequence[tuple[list[tuple[int, float]], dict[str, Any]]]) -> None:
        """Draw lines with their styles over epochs, and where stages begin."""
        for begin in self.begins:
            axes.axvline(begin, color=GRID, linewidth=0.9, zorder=0)
        for points, style in lines:
            if points:
                axes.plot(*zip(*points, strict=True), **{"marker": "o", "markersize": 2.5, **style})
        axes.set_xlim(0, max(1, self.num_epochs))
        axes.locator_params(axis="x", nbins=6, integer=True)
        axes.locator_params(axis="y", nbins=5)
        axes.set_xlabel("epoch", color=MUTED)
        axes.grid(axis="y")


def loss_chart(course: Course) -> Html:
    """Return training and validation loss over epochs."""

    def draw(axes: Any) -> None:
        lines = [(course.values("loss"), _SECOND_LINE), (course.values("train_loss"), {"color": ACCENT})]
        course.draw(axes, lines)
        axes.set_ylim(bottom=0)

    return chart("loss", "Training and validation loss over epochs", draw)


def rate_chart(course: Course) -> Html:
    """Return the learning rate at the start of each epoch."""

    def draw(axes: Any) -> None:
        course.draw(axes, [(course.values("lr"), {"color": ACCENT})])
        axes.set_ylim(bottom=0)

    return chart("rate", "Learning rate over epochs", draw)


def speed_chart(course: Course) -> Html:
    """Return images per second over epochs."""

    def draw(axes: Any) -> None:
        course.draw(axes, [(course.values("images_per_second"), {"color": ACCENT})])
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:,.0f}")

    return chart("speed", "Images per second over epochs", draw)


def waits_chart(course: Course) -> Html:
    """Return the percentage of training time spent waiting for images and for gradients."""

    def draw(axes: Any) -> None:
        course.draw(
            axes, [(course.waits("data_seconds"), {"color": ACCENT}), (course.waits("network_seconds"), _SECOND_LINE)]
        )
        axes.set_ylim(0, max(10.0, axes.get_ylim()[1]))

    return chart("waits", "Percentage of training time spent waiting over epochs", draw)


def sizes_chart(sizes: Sequence[tuple[str, float]]) -> Html:
    """Return a bar for each form of the network.

    Args:
        sizes: Name and bytes of each form, the largest first.
    """

    def draw(axes: Any) -> None:
        largest = max(num_bytes for _, num_bytes in sizes) or 1.0
        for row, (name, num_bytes) in enumerate(sizes):
            is_packed = name == "packed file"
            axes.barh(row, num_bytes, height=0.62, color=ACCENT if is_packed else MUTED, alpha=1 if is_packed else 0.45)
            axes.text(num_bytes + 0.015 * largest, row, size(num_bytes), va="center")
        name_rows(axes, [name for name, _ in sizes])
        axes.set_xlim(0, 1.25 * largest)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)

    names = [name for name, _ in sizes]
    return chart(
        "sizes",
        "Size of the network in several forms",
        draw,
        height=20 + 28.0 * len(sizes),
        left=margin_of(names),
        below=8,
    )


def errors_chart(errors: Sequence[tuple[str, float]]) -> Html:
    """Return the relative quantization error of each layer in percent."""

    def draw(axes: Any) -> None:
        for row, (_, error) in enumerate(errors):
            axes.plot([0, error], [row, row], color=GRID, linewidth=1.2, zorder=1)
            axes.plot(error, row, "o", color=ACCENT, zorder=2)
        name_rows(axes, [name for name, _ in errors])
        axes.set_xlim(0, 1.12 * max(error for _, error in errors) or 1.0)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("relative error, %", color=MUTED)

    names = [name for name, _ in errors]
    label = "Relative quantization error of each layer: " + ", ".join(
        f"{name} {percent(error)}" for name, error in errors[:8]
    )
    return chart("errors", label, draw, height=height_of(len(errors)), left=margin_of(names))
