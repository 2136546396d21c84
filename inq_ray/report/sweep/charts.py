"""Charts of a sweep."""

from collections.abc import Callable, Sequence
from typing import Any

from inq_ray.report.chart import ACCENT, GRID, INK, MUTED, PAPER, chart, height_of, margin_of, name_rows
from inq_ray.report.html import Html
from inq_ray.report.run.charts import limit
from inq_ray.sweep.trials.ranking import Effect, best_of, pareto
from inq_ray.sweep.trials.trial import Trial


def front_chart(name: str, trials: Sequence[Trial], cost: Callable[[Trial], float], unit: str) -> Html:
    """Return top-1 over a cost, and the trials that no other beats in both.

    Args:
        name: Name that is unique in the page.
        trials: Finished trials.
        cost: Cost of a trial.
        unit: Name and unit of the cost.
    """
    front = pareto(trials, cost)

    def draw(axes: Any) -> None:
        results = [(cost(trial), trial.top1 or 0.0) for trial in trials]
        axes.plot(*zip(*results, strict=True), "o", color=MUTED, markerfacecolor=PAPER, markersize=4, zorder=2)
        best = [(cost(trial), trial.top1 or 0.0) for trial in front]
        axes.plot(*zip(*best, strict=True), "o-", color=ACCENT, drawstyle="steps-post", linewidth=1.0, zorder=3)
        limit(axes, [top1 for _, top1 in results])
        axes.margins(x=0.12)
        # Labels of neighbors would cover each other: the first and the last are enough to find the table's rows.
        for index, place in {0: front[0], -1: front[-1]}.items():
            where = (cost(place), place.top1 or 0.0)
            axes.annotate(
                place.name, where, xytext=(5, -11 if index == 0 else 5), textcoords="offset points", color=INK
            )
        costs = sorted({value for value, _ in results})
        if len(costs) <= 6 and all(value == int(value) for value in costs):
            axes.set_xticks(costs, [f"{value:,.0f}" for value in costs])
        axes.locator_params(axis="y", nbins=6)
        axes.set_xlabel(unit, color=MUTED)
        axes.grid(axis="y")

    return chart(name, f"Top-1 in percent over {unit}, a point for each trial", draw, height=230)


def curves_chart(trials: Sequence[Trial]) -> Html:
    """Return top-1 at the end of each stage over the portion, a line for each trial, the best one strongest."""
    best = best_of(trials)

    def draw(axes: Any) -> None:
        values = []
        for trial in trials:
            curve = [(portion, top1) for portion, top1 in trial.curve if portion > 0]
            if not curve:
                continue
            values += [top1 for _, top1 in curve]
            style = {"color": MUTED, "linewidth": 0.9, "alpha": 0.55, "markersize": 2.5, "zorder": 2}
            if trial is best:
                style = {"color": ACCENT, "linewidth": 2.2, "markersize": 4, "zorder": 3}
            elif trial.top1 is None:
                style |= {"linestyle": (0, (3, 2))}
            axes.plot(*zip(*curve, strict=True), marker="o", **style)
        limit(axes, values)
        axes.set_xlim(0, 1.01)
        axes.set_xlabel("accumulated portion of frozen weights", color=MUTED)
        axes.grid(axis="y")

    return chart("curves", "Top-1 at the end of each stage over the portion, a line for each trial", draw, height=230)


def effects_chart(effects: Sequence[Effect]) -> Html:
    """Return mean and best top-1 of each value of each parameter."""
    names = [f"{effect.parameter} {effect.value}" for effect in effects]

    def draw(axes: Any) -> None:
        for row, effect in enumerate(effects):
            axes.plot([effect.mean, effect.best], [row, row], color=GRID, linewidth=1.4, zorder=1)
            axes.plot(effect.best, row, "o", color=ACCENT, markerfacecolor=PAPER, markeredgewidth=1.4, zorder=2)
            axes.plot(effect.mean, row, "o", color=ACCENT, zorder=3)
            if row and effect.parameter != effects[row - 1].parameter:
                axes.axhline(row - 0.5, color=GRID, linewidth=0.8)
        name_rows(axes, names)
        axes.margins(x=0.06)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("top-1, %", color=MUTED)

    return chart(
        "effects", "Mean and best top-1 for each value", draw, height=height_of(len(names)), left=margin_of(names)
    )
