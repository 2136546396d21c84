"""Timing of alternatives in one run, in turns, so that what else the machine does meets all of them alike."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table


class Case(NamedTuple):
    """One alternative: `prepare` makes what `run` is given, and is not timed."""

    run: Callable[[Any], object]
    prepare: Callable[[], Any] = lambda: None


def take_turns(cases: Mapping[str, Case], num_rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of each case, round by round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_ in range(num_rounds + 1):
        for name, case in cases.items():
            prepared = case.prepare()
            start = time.perf_counter()
            case.run(prepared)
            if round_ > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def report(title: str, seconds: Mapping[str, Sequence[float]], *, reference: str, notes: Mapping[str, str]) -> None:
    """Prints a table with ratios to `reference`, and writes the same as JSON where --json FILE says so.

    Ratios are medians over the rounds of (case / reference in the same round), and of the two minima.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", type=Path, help="file for the figures")
    file = parser.parse_args().json
    base = seconds[reference]
    table = Table(title=f"{title}, {torch.get_num_threads()} thread(s)")
    for column in ("", "median ms", "min ms", f"ratio to {reference}", "of minima"):
        table.add_column(column, justify="left" if not column else "right")
    rows: dict[str, dict[str, Any]] = {}
    for name, times in seconds.items():
        ratios = [each / other for each, other in zip(times, base, strict=True)]
        rows[name] = {
            "median_seconds": statistics.median(times),
            "min_seconds": min(times),
            "ratio": statistics.median(ratios),
            "ratio_of_minima": min(times) / min(base),
            "note": notes.get(name, ""),
        }
        row = rows[name]
        figures = [f"{1000 * row[key]:.2f}" for key in ("median_seconds", "min_seconds")]
        table.add_row(name + row["note"], *figures, f"{row['ratio']:.2f}", f"{row['ratio_of_minima']:.2f}")
    Console(width=120).print(table)
    if file is not None:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
        result = {"title": title, "threads": torch.get_num_threads(), "reference": reference, **machine, "rows": rows}
        file.write_text(json.dumps(result, indent=2) + "\n")
