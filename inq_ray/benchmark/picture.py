"""Picture of a benchmark: a step by portion for each exchange, and the speed by number of workers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inq_ray.benchmark.advice import images_per_second
from inq_ray.benchmark.figures import World
from inq_ray.benchmark.step import EXCHANGES, NONE
from inq_ray.files.whole import whole

# Color and marker of each exchange: distinguished without color, too.
_STYLES = {
    "dense": ("C0", "o"),
    "live": ("C1", "s"),
    "bf16": ("C2", "^"),
    "live + bf16": ("C3", "D"),
    NONE: ("0.5", "x"),
}


def draw(worlds: Sequence[World], batch_size: int, path: Path, title: str) -> None:
    """Draw the figures into a file.

    Args:
        worlds: Figures, by ascending number of workers.
        batch_size: Images per step over all workers.
        path: Path of the file; its suffix gives the format.
        title: Heading of the picture.

    Raises:
        OSError: The file cannot be written.
    """
    figure = figure_of(worlds, batch_size, title)
    with whole(path) as beside:
        figure.savefig(beside, format=path.suffix.removeprefix("."), dpi=150)


def figure_of(worlds: Sequence[World], batch_size: int, title: str) -> Any:
    """Return the matplotlib figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_axes = len(worlds) + (len(worlds) > 1)
    figure = Figure(figsize=(max(6.0, 4.2 * num_axes), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, num_axes, squeeze=False)[0]
    for each, world in zip(axes, worlds, strict=False):
        _draw_steps(each, world)
    if len(worlds) > 1:
        _draw_speeds(axes[-1], worlds, batch_size)
    figure.suptitle(title)
    return figure


def _draw_steps(axes: Any, world: World) -> None:
    for kind in (*EXCHANGES, NONE):
        found = {portion: world.find("step", portion, kind) for portion in world.portions()}
        steps = {portion: 1000 * step.median for portion, step in found.items() if step is not None}
        if steps:
            color, marker = _STYLES[kind]
            label = "no exchange" if kind == NONE else kind
            axes.plot(list(steps), list(steps.values()), color=color, marker=marker, markersize=4.5, label=label)
    axes.set_ylim(0, 1100 * max(each.median for each in world.figures if each.what == "step"))
    axes.set_xlabel("portion of frozen weights")
    axes.set_ylabel("step, ms")
    axes.set_title(f"{world.num_workers} worker{'s' if world.num_workers > 1 else ''}", fontsize="medium")
    axes.legend(frameon=False, fontsize="small", loc="lower left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_speeds(axes: Any, worlds: Sequence[World], batch_size: int) -> None:
    numbers = [world.num_workers for world in worlds]
    speeds = [images_per_second(world, batch_size) for world in worlds]
    axes.plot(numbers, speeds, marker="o", label="measured")
    ideal = [speeds[0] * number / numbers[0] for number in numbers]
    axes.plot(numbers, ideal, color="0.5", linestyle="--", linewidth=1, label="ideal")
    axes.set_xticks(numbers)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("workers")
    axes.set_ylabel("images/s after the first stage")
    axes.set_title("same global batch", fontsize="medium")
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
