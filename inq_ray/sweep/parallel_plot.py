"""Parallel plot of a sweep: a vertical axis for each parameter and for the result, a line for each trial."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inq_ray.sweep.trials.trial import Trial, in_words, short

# With at most this many numbers, they are spaced evenly on their axis, so that labels do not overlap.
_FEW = 8
# Ratio of positive numbers above which their axis is logarithmic.
_LOG_RATIO = 10
_FONT_POINTS = 7.5
_LINE_POINTS = 1.3 * _FONT_POINTS
# Margin above the highest and below the lowest value.
_MARGIN = 0.04


@dataclass(frozen=True, kw_only=True)
class ParallelAxis:
    """One vertical axis.

    Attributes:
        name: Name of the parameter.
        heights: Height of each trial, about [0, 1]; None if the trial has no result.
        marks: Text and height of every distinct value, in ascending order.
    """

    name: str
    heights: list[float | None]
    marks: list[tuple[str, float]]


def lower_fence(values: Sequence[float]) -> float:
    """Return the start of an axis for these values: the smallest, or the smallest that is not an outlier.

    Outliers are 3 interquartile ranges or more below the first quartile. They are excluded if the rest then has at
    least three times the space.
    """
    if len(values) < 4:
        return min(values)
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    fence = min(value for value in values if value >= first - 3 * (third - first))
    return fence if 3 * (max(values) - fence) < max(values) - min(values) else min(values)


def parallel_axes(trials: Sequence[Trial]) -> list[ParallelAxis]:
    """Return an axis for each parameter of the trials, and one for top-1."""
    names = dict.fromkeys(name for trial in trials for name in trial.point)
    axes = []
    for name in names:
        values = [trial.point.get(name) for trial in trials]
        height = dict(zip(map(in_words, values), _heights(values), strict=True))
        marks = sorted(height.items(), key=lambda mark: mark[1])
        heights = _fanned_out([height[in_words(value)] for value in values])
        axes.append(ParallelAxis(name=short(name), heights=heights, marks=marks))
    return [*axes, _result_axis(trials)]


def _heights(values: Sequence[Any]) -> list[float]:
    """Return heights in [0, 1]: a few values spaced evenly, many numbers by size."""
    distinct = list({in_words(value): value for value in values}.values())
    if _are_numbers(distinct):
        distinct.sort()
        if len(distinct) > _FEW:
            return _by_size(values)
    elif all(isinstance(value, tuple | list) and _are_numbers(value) for value in distinct):
        distinct.sort(key=list)
    place = {in_words(value): index for index, value in enumerate(distinct)}
    return [place[in_words(value)] / (len(distinct) - 1) if len(distinct) > 1 else 0.5 for value in values]


def _fanned_out(heights: Sequence[float]) -> list[float | None]:
    """Return heights with equal values slightly apart, the first on top, so that no line hides another."""
    counts, seen = Counter(heights), Counter[float]()
    found: list[float | None] = []
    for height in heights:
        middle = (counts[height] - 1) / 2
        found.append(height + (middle - seen[height]) * min(0.004, 0.06 / counts[height]))
        seen[height] += 1
    return found


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _by_size(values: Sequence[float]) -> list[float]:
    if min(values) > 0 and max(values) / min(values) >= _LOG_RATIO:
        values = [math.log(value) for value in values]
    low, high = min(values), max(values)
    return [(value - low) / (high - low) for value in values]


def _result_axis(trials: Sequence[Trial]) -> ParallelAxis:
    """Return the axis of top-1, whose marks name the trials; outliers are at its lower end."""
    results = [trial.top1 for trial in trials if trial.top1 is not None]
    low, high = (lower_fence(results), max(results)) if results else (0.0, 0.0)
    # Space for outliers below the lowest of the others.
    bottom = 0.08 if results and min(results) < low else 0.0
    height: dict[float, float] = {}
    for top1 in sorted(set(results)):
        inside = bottom + (1 - bottom) * (top1 - low) / (high - low) if high > low else 0.5
        height[top1] = inside if top1 >= low else 0.0
    marks = []
    for top1, where in height.items():
        named = [trial.name for trial in trials if trial.top1 == top1]
        more = f" +{len(named) - 2}" if len(named) > 2 else ""
        marks.append((f"{top1:.2f}  {' '.join(named[:2])}{more}", where))
    heights = [None if trial.top1 is None else height[trial.top1] for trial in trials]
    return ParallelAxis(name="top-1, %", heights=heights, marks=marks)


def draw_parallel(plot: Any, axes: Sequence[ParallelAxis], styles: Sequence[dict[str, Any]]) -> None:
    """Draw the axes with all values, and a line in its style for each trial.

    Args:
        plot: Axes of matplotlib, of a figure whose layout is not final.
        axes: Axes of the plot, from the left.
        styles: Style of each trial's line.
    """
    for number, style in enumerate(styles):
        points = [(index, axis.heights[number]) for index, axis in enumerate(axes)]
        where, heights = zip(*[point for point in points if point[1] is not None], strict=True)
        plot.plot(where, heights, **style)
    plot.set_xlim(-0.1, len(axes) - 0.1)
    plot.set_ylim(-_MARGIN, 1 + _MARGIN)
    plot.set_xticks(range(len(axes)), [axis.name for axis in axes])
    plot.set_yticks([])
    plot.set_title("parameters and results, a line for each trial", fontsize="medium")
    plot.spines[:].set_visible(False)
    plot.tick_params(length=0)
    # The plot's height is only known once its titles and ticks are set.
    plot.figure.draw_without_rendering()
    gap = _LINE_POINTS / 72 * plot.figure.dpi / plot.get_window_extent().height * (1 + 2 * _MARGIN)
    for index, axis in enumerate(axes):
        plot.axvline(index, color="0.4", linewidth=0.8, zorder=1)
        _write_marks(plot, index, axis.marks, gap)


def _write_marks(plot: Any, index: int, marks: Sequence[tuple[str, float]], gap: float) -> None:
    """Write each value next to its axis, with a line to its height if it had to be moved."""
    shown = thinned(marks, int((1 + gap) / gap))
    # On a translucent background, so that lines behind do not cross letters.
    veil = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6}
    for (text, height), label_height in zip(shown, spread_out([height for _, height in shown], gap), strict=True):
        plot.plot([index, index + 0.05], [height, label_height], color="0.4", linewidth=0.6, zorder=5)
        label = {"fontsize": _FONT_POINTS, "va": "center", "zorder": 6, "bbox": veil}
        plot.text(index + 0.06, label_height, text, **label)


def thinned(marks: Sequence[tuple[str, float]], most: int) -> Sequence[tuple[str, float]]:
    """Return at most this many marks, including the first and the last."""
    if len(marks) <= most:
        return marks
    return [marks[round(number * (len(marks) - 1) / (most - 1))] for number in range(most)]


def spread_out(heights: Sequence[float], gap: float) -> list[float]:
    """Return ascending heights, moved as little as needed to be `gap` apart, within [0, 1] if they fit.

    Heights that would overlap form a block, which is centered on the mean of its heights.
    """
    blocks: list[list[float]] = []
    for height in heights:
        blocks.append([height])
        while len(blocks) > 1 and _start(blocks[-2], gap) + len(blocks[-2]) * gap > _start(blocks[-1], gap):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [_start(block, gap) + number * gap for block in blocks for number in range(len(block))]


def _start(block: Sequence[float], gap: float) -> float:
    """Return the height of the first label of a block."""
    length = (len(block) - 1) * gap
    return min(max(statistics.fmean(block) - length / 2, 0.0), max(1 - length, 0.0))
