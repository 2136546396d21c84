"""Picture of a measurement: divergence of each layer alone, and accuracy over the layers that are quantized."""

from pathlib import Path
from typing import Any

from inq_ray.files.whole import whole
from inq_ray.sensitivity.measure import Measured
from inq_ray.sensitivity.probe import Score

# Distinguished without color, too.
_MARKERS = "osD^vPX"
# Most names of layers that fit on an axis.
_MOST_NAMES = 60
# Divergences below this are drawn there: rounding changes no output visibly.
LEAST_DIVERGENCE = 1e-6


def draw(measured: Measured, float_score: Score, path: Path, title: str) -> None:
    """Draw a measurement into a file.

    Args:
        measured: The measurement.
        float_score: Score of the float network.
        path: Path of the file; its suffix gives the format.
        title: Heading of the picture.

    Raises:
        OSError: The file cannot be written.
        ValueError: The suffix is not that of a format.
    """
    figure = figure_of(measured, float_score, title)
    with whole(path) as beside:
        figure.savefig(beside, format=path.suffix.removeprefix(".") or "png", dpi=150)


def figure_of(measured: Measured, float_score: Score, title: str) -> Any:
    """Return the matplotlib figure of a measurement."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = min(14.0, max(4.5, 1.5 + 0.19 * len(measured.ranking)))
    figure = Figure(figsize=(12, height), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    _draw_alone(left, measured)
    _draw_cumulative(right, measured, float_score)
    figure.suptitle(title)
    return figure


def _style(index: int, count: int) -> dict[str, Any]:
    """Return color and marker of a number of bits: dark for few, lighter for more."""
    from matplotlib import colormaps

    color = colormaps["viridis"](0.85 * index / max(1, count - 1))
    return {"color": color, "marker": _MARKERS[index % len(_MARKERS)], "markersize": 4.5}


def _draw_alone(axes: Any, measured: Measured) -> None:
    """Draw a row for each layer, the most sensitive on top, with a mark for each number of bits."""
    ranking, bits = measured.ranking, measured.bits
    places = range(len(ranking), 0, -1)
    for index, num_bits in enumerate(bits):
        values = [max(LEAST_DIVERGENCE, measured.scores[name][num_bits].divergence) for name in ranking]
        axes.plot(values, places, linestyle="none", label=f"{num_bits} bits", **_style(index, len(bits)))
    axes.set_xscale("log")
    axes.set_xlabel("divergence from the float network, nats")
    axes.set_title("each layer quantized alone", fontsize="medium")
    every = -(-len(ranking) // _MOST_NAMES)
    axes.set_yticks(list(places)[::every], list(ranking)[::every], fontsize="x-small")
    axes.set_ylim(0.3, len(ranking) + 0.7)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", ncols=len(bits), loc="lower center", bbox_to_anchor=(0.5, 1.04))
    axes.spines[["top", "right"]].set_visible(False)


def _draw_cumulative(axes: Any, measured: Measured, float_score: Score) -> None:
    """Draw accuracy over the number of quantized layers, the least sensitive first."""
    bits = measured.bits
    counts = range(len(measured.ranking) + 1)
    for index, num_bits in enumerate(bits):
        values = [float_score.top1, *(score.top1 for score in list(measured.cumulative[num_bits].values())[::-1])]
        axes.plot(counts, values, linewidth=1.2, **_style(index, len(bits)))
    axes.axhline(float_score.top1, color="0.5", linestyle="--", linewidth=1)
    axes.annotate("float", (0, float_score.top1), xytext=(2, 3), textcoords="offset points", fontsize="small")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("quantized layers, the least sensitive first")
    axes.set_ylabel("top-1 before re-training, %")
    axes.set_title("cumulatively", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
