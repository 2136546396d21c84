"""The part of the page about frozen weights: zeros, exponents, entropy."""

import re
from collections.abc import Sequence

from benchmarks.results.groups import Group, main_of_each
from benchmarks.results.levels import Levels, entropy_of_all
from benchmarks.results.record import Record
from benchmarks.results.tables import table


def frozen(groups: Sequence[Group]) -> str:
    """Zeros, exponents and entropy: of each network as a whole, then by layer."""
    shown = main_of_each(groups)
    if not shown:
        return ""
    heads = ("run", "bits", "weights", "zeros", "exponents", "entropy", "packed kB", "by entropy kB")
    rows = []
    for group in shown:
        record = group.first
        tensors = [Levels.read(tensor) for tensor in record["tensors"].values()]
        num_weights = sum(tensor.num_weights for tensor in tensors)
        entropy = entropy_of_all(tensors)
        rows.append(
            (
                record["name"],
                str(record["bits"]),
                f"{num_weights:,}",
                f"{100 * sum(tensor.num_zero for tensor in tensors) / num_weights:.1f} %",
                f"{min(k for tensor in tensors for k, *_ in tensor.powers)} to "
                f"{max(k for tensor in tensors for k, *_ in tensor.powers)}"
                if any(tensor.powers for tensor in tensors)
                else "none",
                f"{entropy:.3f}",
                f"{num_weights * record['bits'] / 8000:.0f}",
                f"{num_weights * entropy / 8000:.0f}",
            )
        )
    text = (
        "Of the run with the first seed at each width. Entropy is -Σ p log2 p over the levels of a tensor, 0 and each "
        "±2^k, in bits a weight, the mean over weights: what a code of single weights with a table for each tensor "
        "could come down to."
    )
    parts = [text, table(heads, rows)]
    for network in dict.fromkeys(group.key[:2] for group in shown):
        parts += _by_layer([group.first for group in shown if group.key[:2] == network])
    parts.append(_by_place(shown))
    return "\n\n".join(parts)


def _by_layer(records: Sequence[Record]) -> list[str]:
    """Each tensor of a network at each width."""
    names = list(dict.fromkeys(name for record in records for name in record["tensors"]))
    names.sort(key=_natural)
    heads = ("tensor", "weights", *(f"{record['bits']} bits" for record in records))
    rows = []
    for name in names:
        cells = []
        for record in records:
            tensor = record["tensors"].get(name)
            levels = tensor and Levels.read(tensor)
            cells.append(f"{100 * levels.zeros:.1f} %, {levels.exponents}, {levels.entropy:.2f}" if levels else "")
        num_weights = next(record["tensors"][name]["num_weights"] for record in records if name in record["tensors"])
        rows.append((name, f"{num_weights:,}", *cells))
    first = records[0]
    return [f"{first['network']} by layer: zeros, exponents k of ±2^k that occur, entropy.", table(heads, rows)]


def _by_place(groups: Sequence[Group]) -> str:
    """Where in their codebooks weights are: shares by distance from the top."""
    most = max(1 << (group.first["bits"] - 2) for group in groups)
    heads = ("run", "bits", "0", *("2^n_1" if place == 0 else f"2^(n_1-{place})" for place in range(most)))
    rows = []
    for group in groups:
        record = group.first
        counts, num_weights = [0] * (most + 1), 0
        for tensor in record["tensors"].values():
            levels = Levels.read(tensor)
            num_weights += levels.num_weights
            counts[0] += levels.num_zero
            for k, negative, positive in levels.powers:
                counts[1 + tensor["n_1"] - k] += negative + positive
        used = 1 + (1 << (record["bits"] - 2))
        shares = [f"{100 * count / num_weights:.1f}" for count in counts[:used]] + [""] * (most + 1 - used)
        rows.append((record["name"], str(record["bits"]), *shares))
    return f"Share of all weights in %, by how far below the top of its tensor's codebook:\n\n{table(heads, rows)}"


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer2 before layer10, and the last layer as it is written."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
