"""Accuracy over stages, a line for each number of bits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results.groups import Group, main_of_each
from inq_ray.files.whole import whole

_COLORS = {5: "tab:blue", 4: "tab:green", 3: "tab:orange", 2: "tab:red"}


def draw(groups: Sequence[Group], path: Path) -> None:
    """Draw the main groups of the network and data with the most widths into a PNG file."""
    from matplotlib.figure import Figure

    every = main_of_each(groups)
    shown = max(([other for other in every if other.key[:2] == group.key[:2]] for group in every), key=len)
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    _draw(left, shown, "top1", "after the stage's re-training")
    _draw(right, shown, "top1_quantized", "right after the stage's quantizing")
    left.set_ylabel("top-1 on the test set, %")
    left.legend(fontsize="small")
    figure.suptitle(f"{shown[0].first['network']} on {shown[0].first['data']}, mean and range over seeds", fontsize=11)
    with whole(path) as beside:
        figure.savefig(beside, format="png", dpi=100, metadata={"Software": None})


def _draw(axes: Any, groups: Sequence[Group], figure: str, title: str) -> None:
    float_top1 = groups[0].first["float_top1"]
    axes.axhline(float_top1, color="0.3", linewidth=1, linestyle="--", label=f"float {float_top1:.2f}")
    for group in groups:
        bits = group.first["bits"]
        runs = [[stage[figure] for stage in record["stages"]] for record in group.records]
        each = list(zip(*runs, strict=True))
        stages, means = range(1, len(each) + 1), [sum(values) / len(values) for values in each]
        label = f"{bits} bits {sum(group.top1) / len(group.top1):.2f}"
        axes.plot(stages, means, marker="o", markersize=4, color=_COLORS.get(bits), label=label)
        lows, highs = list(map(min, each)), list(map(max, each))
        axes.fill_between(stages, lows, highs, color=_COLORS.get(bits), alpha=0.2, linewidth=0)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("stage")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
