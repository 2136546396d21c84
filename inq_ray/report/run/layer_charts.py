"""Charts of a run's layers."""

from collections.abc import Sequence
from typing import Any

from inq_ray.report.chart import ACCENT, INK, MUTED, PAPER, chart, height_of, margin_of, name_rows
from inq_ray.report.html import Html
from inq_ray.report.run.layers import Layer

# Rows of a chart; larger networks show their largest layers.
MOST_LAYERS = 120
# More columns than any codebook has exponents need no labels each.
_MOST_LABELS = 12


def frozen_chart(layers: Sequence[Layer], frozen: Sequence[Sequence[int]]) -> Html:
    """Return how many weights of each layer each stage froze, the first stage darkest.

    Args:
        layers: Quantized tensors.
        frozen: Number of weights by layer and stage.
    """

    def draw(axes: Any) -> None:
        for row, (layer, counts) in enumerate(zip(layers, frozen, strict=True)):
            begin = 0
            for stage, count in enumerate(counts):
                opacity = 1 - 0.75 * stage / max(1, len(counts) - 1)
                axes.barh(
                    row, count, left=begin, height=0.66, color=ACCENT, alpha=opacity, edgecolor=PAPER, linewidth=0.4
                )
                begin += count
            if begin < layer.num_weights:
                live = layer.num_weights - begin
                axes.barh(row, live, left=begin, height=0.66, facecolor="none", edgecolor=MUTED, linewidth=0.6)
        name_rows(axes, [layer.row.name for layer in layers])
        axes.set_xlim(0, max(layer.num_weights for layer in layers))
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("weights", color=MUTED)

    left = margin_of([layer.row.name for layer in layers])
    return chart(
        "frozen", "Number of weights frozen in each stage, by layer", draw, height=height_of(len(layers)), left=left
    )


def _place(column: int) -> float:
    """Return where a column is: that of zeros, the first, is apart from those of powers."""
    return column or -0.4


def exponents_chart(layers: Sequence[Layer]) -> Html:
    """Return the share of zeros and of each ±2^k among the frozen weights of each layer; more is darker."""
    powers = sorted({power for layer in layers for power in layer.powers})
    columns: list[int | None] = [None, *(range(powers[0], powers[-1] + 1) if powers else ())]

    def draw(axes: Any) -> None:
        from matplotlib.patches import Rectangle

        for row, layer in enumerate(layers):
            counts = [layer.row.num_zero if power is None else layer.powers.get(power, 0) for power in columns]
            most = max(counts) or 1
            for column, count in enumerate(counts):
                if count:
                    cell = Rectangle((_place(column) - 0.47, row - 0.44), 0.94, 0.88, linewidth=0)
                    cell.set(facecolor=ACCENT, alpha=0.1 + 0.9 * (count / most))
                    axes.add_patch(cell)
        name_rows(axes, [layer.row.name for layer in layers])
        axes.set_xlim(_place(0) - 0.5, len(columns) - 0.5)
        every = max(1, -(-len(columns) // _MOST_LABELS))
        shown = [(_place(0), "zero"), *((place, f"{columns[place]}") for place in range(len(columns) - 1, 0, -every))]
        axes.set_xticks([place for place, _ in shown], [text for _, text in shown])
        axes.tick_params(axis="x", length=0, colors=INK)
        axes.set_xlabel("zero, and k of ±2^k", color=MUTED)
        axes.spines["bottom"].set_visible(False)

    left = margin_of([layer.row.name for layer in layers])
    return chart(
        "exponents", "Share of zeros and of each power of two, by layer", draw, height=height_of(len(layers)), left=left
    )
