"""Picture of the results: change of top-1 over the accumulated portion, a line for each number of bits."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.results.groups import Group, main_of_each, spread
from inq_ray.files.whole import whole

# Paul Tol's high-contrast colors and black, which differ for color-blind readers and in gray; marker and dashes do too.
_STYLES = [("#004488", "o", "-"), ("#ddaa33", "s", "--"), ("#bb5566", "^", "-."), ("#000000", "D", ":")]
# Points of top-1 up to which the right scale is linear; from there on it is logarithmic.
_LINEAR_POINTS = 1
_TICKS = [0.5, 0, -0.5, -1, -2, -5, -10, -20, -50, -100]
# A font that comes with matplotlib.
PAPER: dict[Any, Any] = {
    "font.family": "STIXGeneral",
    "font.size": 10,
    "axes.linewidth": 0.7,
    "figure.facecolor": "white",
}


def draw(groups: Sequence[Group], path: Path) -> None:
    """Draw the main groups of the network and data with the most widths into a PNG file."""
    from matplotlib import rc_context

    with rc_context(PAPER), whole(path) as beside:
        figure_of(groups).savefig(beside, format="png", dpi=200, metadata={"Software": None})


def figure_of(groups: Sequence[Group]) -> Any:
    """Return the matplotlib figure of `draw`."""
    from matplotlib.figure import Figure

    every = main_of_each(groups)
    shown = max(([other for other in every if other.key[:2] == group.key[:2]] for group in every), key=len)
    first = shown[0].first
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    _draw(left, shown, "top1")
    _draw(right, shown, "top1_quantized")
    left.set_title("after re-training each stage", fontsize="medium")
    stale = " (stale BatchNorm statistics)" if any(group.is_stale for group in shown) else ""
    right.set_title(f"right after quantizing{stale}", fontsize="medium")
    left.set_ylabel("change of top-1 from float, points")
    right.set_yscale("symlog", linthresh=_LINEAR_POINTS)
    right.set_yticks(_TICKS, [f"{tick:g}".replace("-", "\N{MINUS SIGN}") for tick in _TICKS], minor=False)
    right.minorticks_off()
    lows = [stage["top1_quantized"] - first["float_top1"] for group in shown for stage in _stages(group)]
    right.set_ylim(min(-_LINEAR_POINTS, *lows) * 1.3, 0.5)
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=5,
        frameon=False,
        fontsize="small",
        columnspacing=1.2,
    )
    figure.suptitle(f"{first['network']} on {first['data']}, mean and range over seeds", fontsize="medium")
    return figure


def _stages(group: Group) -> list[Any]:
    return [stage for record in group.records for stage in record["stages"]]


def _draw(axes: Any, groups: Sequence[Group], figure: str) -> None:
    axes.axhline(0, color="0.4", linewidth=0.8, label=f"float: {groups[0].first['float_top1']:.2f}")
    for group, (color, marker, dashes) in zip(groups, cycle(_STYLES)):
        runs = [[stage[figure] - record["float_top1"] for stage in record["stages"]] for record in group.records]
        portions = [stage["portion"] for stage in group.first["stages"]]
        each = list(zip(*runs, strict=True))
        means = [fmean(values) for values in each]
        ranges = [
            [mean - min(values) for mean, values in zip(means, each, strict=True)],
            [max(values) - mean for mean, values in zip(means, each, strict=True)],
        ]
        axes.errorbar(
            portions,
            means,
            yerr=ranges,
            label=f"{group.first['bits']} bits: {spread(group.top1)}",
            color=color,
            marker=marker,
            linestyle=dashes,
            markersize=4,
            linewidth=1.3,
            elinewidth=0.8,
            capsize=1.5,
        )
    axes.set_xlabel("accumulated portion of frozen weights")
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
