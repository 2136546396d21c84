"""A sweep as a picture: accuracy over accumulated portion for each trial, and all parameters beside each other."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inq_ray.files.whole import whole
from inq_ray.sweep.trials.ranking import best_of
from inq_ray.sweep.trials.trial import Trial, describe, in_words, short


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(trials: Sequence[Trial], path: Path, title: str) -> None:
    """Draws a sweep into a file.

    Args:
        trials: of the sweep; those that have passed a stage are drawn.
        path: of the file; its suffix says the format.
        title: above all.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [trial for trial in trials if trial.ends]
    figure = Figure(figsize=(14, 6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_curves(left, shown)
    _draw_parallel(right, [trial for trial in shown if trial.top1 is not None])
    figure.suptitle(title)
    with whole(path) as beside:
        figure.savefig(beside, format=path.suffix.removeprefix("."), dpi=120)


def _draw_curves(axes: Any, trials: Sequence[Trial]) -> None:
    best = best_of(trials)
    for trial in trials:
        style: dict[str, Any] = {"marker": "o", "linewidth": 2.5 if trial is best else 1.0}
        if trial.status != "done":
            style |= {"linestyle": "--", "alpha": 0.6}
        words = " ".join(f"{name} {value}" for name, value in describe(trial.point).items())
        axes.plot(*zip(*trial.curve, strict=True), label=f"{trial.name} {words}"[:60], **style)
    axes.set_xlabel("accumulated portion of the weights that is frozen")
    axes.set_ylabel("top-1 on held-out images, %")
    axes.grid(alpha=0.3)
    if trials:
        axes.legend(fontsize="x-small", ncols=1 + len(trials) // 20)


def _draw_parallel(axes: Any, trials: Sequence[Trial]) -> None:
    """A vertical scale for each parameter and for accuracy, a line for each trial."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.point))
    scales = [_scale([trial.point.get(name) for trial in trials]) for name in names]
    scales.append(_scale([trial.top1 for trial in trials]))
    labels = [*map(short, names), "top-1"]
    best = best_of(trials)
    for number, trial in enumerate(trials):
        heights = [heights[number] for heights, _ in scales]
        axes.plot(
            range(len(scales)), heights, linewidth=2.5 if trial is best else 1.0, alpha=1 if trial is best else 0.6
        )
    for index, (_, marks) in enumerate(scales):
        for text, height in marks:
            axes.annotate(text, (index, height), fontsize="x-small", ha="center", backgroundcolor="white")
    axes.set_xticks(range(len(scales)), labels)
    axes.set_yticks([])
    axes.set_title("each line is a trial that came to its end")


def _scale(values: Sequence[Any]) -> tuple[list[float], list[tuple[str, float]]]:
    """Heights in [0, 1] of values, and what to write beside: numbers by size, other values in order."""
    if values and all(isinstance(value, float) for value in values):
        low, high = min(values), max(values)
        heights = [(value - low) / (high - low) if high > low else 0.5 for value in values]
        return heights, [(f"{low:.4g}", 0.0 if high > low else 0.5), (f"{high:.4g}", 1.0)][: 1 + (high > low)]
    words = [in_words(value) for value in values]
    distinct = list(dict.fromkeys(words))
    step = 1 / max(1, len(distinct) - 1)
    of_word = {word: (index * step if len(distinct) > 1 else 0.5) for index, word in enumerate(distinct)}
    return [of_word[word] for word in words], list(of_word.items())
