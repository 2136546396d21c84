"""Tables of a benchmark for a terminal of 80 columns, as rows of text."""

from collections.abc import Sequence
from typing import NamedTuple

from inq_ray.benchmark.advice import images_per_second
from inq_ray.benchmark.figures import Figure, World
from inq_ray.benchmark.step import EXCHANGES, NONE


class Rows(NamedTuple):
    """A table: title, heads of the columns, and rows."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables_of(world: World) -> list[Rows]:
    """Return the tables of one number of workers."""
    if world.num_workers == 1:
        return [_parts(world)]
    return [_steps(world), _bytes(world), _parts(world)]


def lines_of(world: World) -> list[str]:
    """Return what has no portion, a line each."""
    lines: list[str] = []
    link, latency = world.find("link"), world.find("link_latency")
    if link is not None and latency is not None:
        speed = f"{link.median / 1e6:,.0f} MB/s bus bandwidth (all-reduce of 25 MB)"
        lines.append(f"link: {speed}, {_ms(latency)} ms for 4 kB")
    stall, write, size = (world.find(f"checkpoint_{what}") for what in ("stall", "write", "bytes"))
    if stall is not None and write is not None and size is not None:
        complete = f"complete after {write.median:.2g} s, {size.median / 1e6:.1f} MB"
        lines.append(f"checkpoint: stops training for {_ms(stall)} ms; {complete}")
    reads = world.find("input")
    if reads is not None:
        lines.append(f"input: {reads.median:,.0f} images/s")
    return lines


def worlds_table(worlds: Sequence[World], batch_size: int) -> Rows:
    """Return the speed by number of workers."""
    least = worlds[0]
    rows = []
    for world in worlds:
        speed = images_per_second(world, batch_size)
        factor = speed / images_per_second(least, batch_size)
        ideal = world.num_workers / least.num_workers
        rows.append((str(world.num_workers), f"{speed:,.1f}", f"{factor:.2f}", f"{100 * factor / ideal:.0f} %"))
    return Rows(
        "speed after the first stage, with the same global batch:",
        ("workers", "images/s", "factor", "of ideal"),
        rows,
    )


def _steps(world: World) -> Rows:
    rows = []
    for portion in world.portions():
        steps = [world.find("step", portion, kind) for kind in (*EXCHANGES, NONE)]
        rows.append((f"{portion:g}", *(_timed(step) for step in steps)))
    heads = ("frozen", *EXCHANGES, "no exchange")
    return Rows("a step by gradients that are exchanged, ms (relative to dense):", heads, rows)


def _timed(step: Figure | None) -> str:
    if step is None:
        return ""
    return _ms(step) if step.gradients == "dense" or step.ratio is None else f"{_ms(step)} ({step.ratio:.2f})"


def _bytes(world: World) -> Rows:
    rows = []
    for portion in world.portions():
        sent = [world.find("step_bytes", portion, kind) for kind in EXCHANGES]
        rows.append((f"{portion:g}", *("" if each is None else f"{each.median / 1e6:.3g}" for each in sent)))
    return Rows("gradients that a worker sends in a step, MB:", ("frozen", *EXCHANGES), rows)


def _parts(world: World) -> Rows:
    is_alone = world.num_workers == 1
    rows = []
    for portion in world.portions():
        step = [_cell(world.find("step", portion, NONE))] if is_alone else []
        optimizer = world.find("optimizer", portion)
        ratio = "" if optimizer is None or optimizer.ratio is None else f" ({optimizer.ratio:.2f})"
        size = world.find("message_bytes", portion)
        rows.append(
            (
                f"{portion:g}",
                *step,
                _cell(optimizer) + ratio,
                _cell(world.find("stage", portion)),
                _cell(world.find("message", portion)),
                "" if size is None else f"{size.median / 1e3:,.0f}",
            )
        )
    heads = ("frozen", *(["step"] if is_alone else []), "optimizer (to torch's)", "stage", "message", "message, kB")
    return Rows(
        "step, optimizer step, stage and its message, ms:"
        if is_alone
        else "optimizer step, stage and its message, ms:",
        heads,
        rows,
    )


def _cell(figure: Figure | None) -> str:
    return "" if figure is None else _ms(figure)


def _ms(figure: Figure) -> str:
    value = 1000 * figure.median
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
