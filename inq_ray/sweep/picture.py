"""Picture of a sweep: top-1 over the accumulated portion, and every parameter against the result."""

import importlib.util
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inq_ray.files.whole import whole
from inq_ray.sweep.parallel_plot import draw_parallel, lower_fence, parallel_axes
from inq_ray.sweep.trials.ranking import best_of, ranked
from inq_ray.sweep.trials.trial import Trial, describe

# Light to dark, in grayscale too; without the lightest yellow, which is hard to see on white.
_COLORS = "viridis_r"
_LIGHTEST = 0.12
_NO_RESULT = "0.65"


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(trials: Sequence[Trial], path: Path, title: str) -> None:
    """Draw a sweep into a file.

    Args:
        trials: Trials of the sweep; those that have finished a stage are drawn.
        path: Path of the file; its suffix gives the format.
        title: Heading of the picture.

    Raises:
        OSError: The file cannot be written.
    """
    figure = figure_of(trials, title)
    with whole(path) as beside:
        figure.savefig(beside, format=path.suffix.removeprefix("."), dpi=150)


def figure_of(trials: Sequence[Trial], title: str) -> Any:
    """Return the matplotlib figure of a sweep.

    The better a trial's top-1, the darker its color. Trials without a result are dashed and gray.
    """
    import matplotlib as mpl

    with mpl.rc_context({"text.parse_math": False}):  # names have dollars that begin no formula
        return _drawn(trials, title)


def _drawn(trials: Sequence[Trial], title: str) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    shown = [trial for trial in ranked(trials) if len(trial.curve) > 1]
    axes = parallel_axes(shown)
    height = min(14.0, max(6.0, 2.0 + 0.15 * max(len(axis.marks) for axis in axes)))
    figure = Figure(figsize=(6.5 + 1.7 * len(axes), height), layout=ConstrainedLayoutEngine(wspace=0.06))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[5.5, 1.7 * len(axes)])
    scale = _color_scale(shown)
    _draw_curves(left, shown, scale)
    draw_parallel(right, axes, [_style(trial, shown, scale) for trial in shown])
    results = [trial.top1 for trial in shown if trial.top1 is not None]
    if results:
        clipped = "min" if min(results) < scale.norm.vmin else "neither"
        figure.colorbar(scale, ax=left, label="top-1 at the end, %", extend=clipped, format="%.2f")
    figure.suptitle(title)
    return figure


def _color_scale(trials: Sequence[Trial]) -> Any:
    """Return the mapping from top-1 to a color; low outliers have the color of the lowest value that is not one."""
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    results = [trial.top1 for trial in trials if trial.top1 is not None] or [0.0]
    low, high = lower_fence(results), max(results)
    colors = ListedColormap(colormaps[_COLORS](np.linspace(_LIGHTEST, 1, 256)))
    return ScalarMappable(Normalize(low if low < high else high - 1, high, clip=True), colors)


def _style(trial: Trial, trials: Sequence[Trial], scale: Any) -> dict[str, Any]:
    """Return color, width and order of a trial's lines; better ones are drawn on top."""
    if trial.top1 is None:
        return {"color": _NO_RESULT, "linestyle": "--", "linewidth": 1.0, "zorder": 2.0}
    is_best = trial is best_of(trials)
    order = 3 + (scale.norm(trial.top1) + is_best) / 2
    return {"color": scale.to_rgba(trial.top1), "linewidth": 2.8 if is_best else 1.2, "zorder": float(order)}


def _draw_curves(axes: Any, trials: Sequence[Trial], scale: Any) -> None:
    """Draw a line for each trial through the ends of its stages."""
    best = best_of(trials)
    for trial in trials:
        stages = [(portion, top1) for portion, top1 in trial.curve if portion > 0]
        label = _caption(trial) if trial is best else None
        axes.plot(*zip(*stages, strict=True), marker="o", markersize=4, label=label, **_style(trial, trials, scale))
    if any(trial.top1 is None for trial in trials):
        axes.plot([], [], color=_NO_RESULT, linestyle="--", label="stopped, failed or unfinished")
    if trials:
        _limit(axes, [top1 for trial in trials for portion, top1 in trial.curve if portion > 0])
        _legend_below(axes)
    axes.set_xlabel("accumulated portion of frozen weights")
    axes.set_ylabel("top-1 on held-out images after each stage, %")
    axes.set_title(_float_top1(trials), fontsize="medium")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _legend_below(axes: Any) -> None:
    """Put the legend below the axis, where it covers nothing."""
    from matplotlib.transforms import ScaledTranslation

    below = axes.transAxes + ScaledTranslation(0, -0.55, axes.figure.dpi_scale_trans)
    axes.legend(
        fontsize="small", frameon=False, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, borderaxespad=0
    )


def _caption(best: Trial) -> str:
    # With non-breaking spaces.
    words = ", ".join(f"{name}\u00a0{value}" for name, value in describe(best.point).items())
    return textwrap.fill(f"{best.name}, the best: {words}", 64, max_lines=4)


def _limit(axes: Any, values: Sequence[float]) -> None:
    """Start the axis at the lowest value that is not an outlier, and note how many are below."""
    low, high = lower_fence(values), max(values)
    num_below = sum(value < low for value in values)
    if num_below:
        room = 0.05 * (high - low) or 0.1
        axes.set_ylim(low - room, high + room)
        axes.annotate(
            f"{num_below} value{'s' * (num_below > 1)} below", (0.01, 0.01), xycoords="axes fraction", fontsize="small"
        )


def _float_top1(trials: Sequence[Trial]) -> str:
    """Return a text about the float networks that the trials start from."""
    values = [top1 for trial in trials for portion, top1 in trial.curve if portion == 0]
    if not values:
        return "quantized"
    low, high = min(values), max(values)
    return f"float network: {low:.2f} %" if low == high else f"float networks: {low:.2f} to {high:.2f} %"
