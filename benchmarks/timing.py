"""Tables of timings of alternatives in one run; see inq_ray.benchmark.turns."""

import argparse
import json
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table


def show(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; columns with a head are right-aligned."""
    table = Table(title=title)
    for head in heads:
        table.add_column(head, justify="right" if head else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


def report(title: str, seconds: Mapping[str, Sequence[float]], *, reference: str, notes: Mapping[str, str]) -> None:
    """Print a table with ratios to `reference`, and write it as JSON with --json FILE.

    Ratios are medians over the rounds of (case / reference in the same round), and of the two minima.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", type=Path, help="file for the figures")
    file = parser.parse_args().json
    base = seconds[reference]
    rows: dict[str, dict[str, Any]] = {}
    lines = []
    for name, times in seconds.items():
        row = rows[name] = {
            "median_seconds": statistics.median(times),
            "min_seconds": min(times),
            "ratio": statistics.median(each / other for each, other in zip(times, base, strict=True)),
            "ratio_of_minima": min(times) / min(base),
            "note": notes.get(name, ""),
        }
        figures = [1000 * row["median_seconds"], 1000 * row["min_seconds"], row["ratio"], row["ratio_of_minima"]]
        lines.append((name + row["note"], *(f"{figure:.2f}" for figure in figures)))
    heads = ("", "median ms", "min ms", f"ratio to {reference}", "of minima")
    show(f"{title}, {torch.get_num_threads()} thread(s)", heads, lines)
    if file is not None:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
        result = {"title": title, "threads": torch.get_num_threads(), "reference": reference, **machine, "rows": rows}
        file.write_text(json.dumps(result, indent=2) + "\n")
