"""The page of all results."""

import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.results.groups import Group, differences, ends, groups_of, main_groups, main_of_each, spread
from benchmarks.results.record import Record, read_records
from benchmarks.results.tables import commands, comparison, main_table, table
from inq_ray.core.codebook import num_exponents

_HEAD = """# Results

Made by `python -m benchmarks.results write` from the files beside it; `make results-check` fails where they differ. A
file in docs/results/runs/ is what is kept of one run: configuration, command, commit, accuracies, seconds, digest, and
how many weights of each tensor are at which level. Accuracies are top-1 in %, and ± is the sample standard deviation
over seeds."""
_FROZEN = """\
Of the run with the first seed at each width. Entropy is -Σ p log2 p over the levels of a tensor, 0 and each ±2^k, in
bits a weight, the mean over weights: what a code of single weights with a table for each tensor could come down to."""
_KEPT = """\
Codes at their bits, and what stays float; `restore` of benchmarks/results/kept.py makes of such a file what
`load_state_dict` takes. A test evaluates each on the test set, on a CPU, and must count as many images."""
# What trials in one table have in common: the float network that they begin with, and how long they are trained.
_IN_COMMON = ["network.weights"]
_IN_COMMON += [f"training.{name}" for name in ("epochs", "epochs_each", "epochs_total", "limit_batches")]


def page(folder: Path) -> str:
    """Return the whole page of the results in a folder.

    Raises:
        ValueError: A held-out run names another one that it cannot be compared with.
    """
    runs, trials = (read_records(folder / name) for name in ("runs", "choices"))
    groups = groups_of(runs)
    sections = {
        "Final runs": _final(groups) if groups else "No run is collected yet.",
        "Random against pruning-inspired partition": _partition(groups),
        "The frozen weights": _frozen([group.first for group in main_of_each(groups)]),
        "Kept weights": _kept(folder / "weights", runs),
        "Choices": _choices(folder / "choices", trials),
    }
    return "\n\n".join([_HEAD, *(f"## {title}\n\n{body}" for title, body in sections.items() if body)]) + "\n"


def _final(groups: Sequence[Group]) -> str:
    shown, records = main_groups(groups), [record for group in groups for record in group.records]
    parts = [
        main_table(shown),
        comparison(groups),
        "Every run; all other figures are in its file.",
        table([_run(record) for record in records]),
        "Top-1 after each stage, mean over seeds, right after quantizing → re-trained:",
        "\n".join(f"- {group.first['bits']} bits: {_stages(group)}" for group in shown),
        "The command of each group; of its other runs only `--seed` and `--name` differ:",
        *commands(groups),
        "\n".join(f"- {record['name']}: {record['note']}" for record in records if record["note"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _run(record: Record) -> dict[str, Any]:
    return {
        "run": f"[{record['name']}](runs/{record['name']}.json)",
        **{name: record[name] for name in ("bits", "strategy", "seed")},
        "float": f"{record['float_top1']:.2f}",
        "top-1": f"{record['top1']:.2f}",
        "images": _right(record),
        "images/s": f"{record['images_per_second']:,.0f}" if record["images_per_second"] else "",
        "minutes": f"{record['seconds'] / 60:.1f}",
        "commit": record["commit"][:7],
        "digest": f"`{record['digest'][:16]}`",
    }


def _right(record: Record) -> str:
    return f"{record['num_correct']:,} of {record['num_images']:,}"


def _stages(group: Group) -> str:
    """Return the mean accuracies of each stage."""
    words = []
    for stages in zip(*(record["stages"] for record in group.records), strict=True):
        before, after = (fmean(stage[name] for stage in stages) for name in ("top1_quantized", "top1"))
        words.append(f"{stages[0]['portion']:g}: {before:.2f} → {after:.2f}")
    return "; ".join(words)


def _partition(groups: Sequence[Group]) -> str:
    """Return the table of groups that differ only in their strategy."""
    rows = []
    for group in groups:
        alike = [other for other in groups if _but_strategy(other) == _but_strategy(group)]
        base = next((other for other in alike if other.first["strategy"] == "pruning"), group)
        against = fmean(group.top1) - fmean(base.top1)
        if len(alike) > 1:
            rows.append(
                {
                    **{name: group.first[name] for name in ("network", "strategy", "bits")},
                    "seeds": group.seeds,
                    "top-1": spread(group.top1),
                    "range": ends(group.top1),
                    "against float": f"{group.change:+.2f}",
                    "against pruning": "" if group is base else f"{against:+.2f}",
                }
            )
    return table(rows)


def _but_strategy(group: Group) -> dict[str, str]:
    return group.fields | {"quantization.strategy": ""}


def _frozen(records: Sequence[Record]) -> str:
    """Return zeros, exponents and entropy of the weights: of whole networks, by layer, by place in the codebook."""
    if not records:
        return ""
    parts = [_FROZEN, table([_whole_network(record) for record in records])]
    for network in dict.fromkeys(record["network"] for record in records):
        of_network = [record for record in records if record["network"] == network]
        parts += [f"{network} by layer: zeros, exponents k of ±2^k that occur, entropy.", _by_layer(of_network)]
    with_one_top = [record for record in records if record.get("codebook_per", "tensor") == "tensor"]
    if with_one_top:
        parts += [
            "Share of all weights in %, by how far below the top of its tensor's codebook:",
            _by_place(with_one_top),
        ]
    return "\n\n".join(parts)


def _whole_network(record: Record) -> dict[str, Any]:
    tensors = record["tensors"].values()
    num = sum(tensor["num_weights"] for tensor in tensors)
    entropy = sum(tensor["entropy"] * tensor["num_weights"] for tensor in tensors) / num
    return {
        "run": record["name"],
        "bits": record["bits"],
        "weights": f"{num:,}",
        "zeros": f"{100 * sum(tensor['num_zero'] for tensor in tensors) / num:.1f} %",
        "exponents": _exponents([power for tensor in tensors for power in tensor["powers"]]),
        "entropy": f"{entropy:.3f}",
        "packed kB": f"{num * record['bits'] / 8000:.0f}",
        "by entropy kB": f"{num * entropy / 8000:.0f}",
    }


def _exponents(powers: Sequence[Sequence[int]]) -> str:
    """Return the k of [k, ...] that occur, as a range."""
    found = sorted({power[0] for power in powers})
    gaps = f", {len(found)} of them" if found and len(found) <= found[-1] - found[0] else ""
    return " to ".join(str(k) for k in dict.fromkeys([*found[:1], *found[-1:]])) + gaps or "none"


def _by_layer(records: Sequence[Record]) -> str:
    """Return the table of each tensor of a network at each width."""
    every = {name: tensor for record in records for name, tensor in record["tensors"].items()}
    rows = []
    for name in sorted(every, key=_natural):
        cells = {f"{record['bits']} bits": _tensor(record["tensors"].get(name)) for record in records}
        rows.append({"tensor": name, "weights": f"{every[name]['num_weights']:,}", **cells})
    return table(rows)


def _tensor(levels: Record | None) -> str:
    if levels is None:
        return ""
    return f"{100 * levels['zeros']:.1f} %, {_exponents(levels['powers'])}, {levels['entropy']:.2f}"


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort layer2 before layer10, and the last layer as it is written."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _by_place(records: Sequence[Record]) -> str:
    """Return the table of shares of weights by distance from the top of their tensor's codebook."""
    sizes = [num_exponents(record["bits"], record.get("levels", "paper")) for record in records]
    most = max(sizes)
    rows = []
    for record, size in zip(records, sizes, strict=True):
        counts, tensors = [0] * size, record["tensors"].values()
        for tensor in tensors:
            for k, *signs in tensor["powers"]:
                counts[tensor["n_1"] - k] += sum(signs)
        num_zero = sum(tensor["num_zero"] for tensor in tensors)
        shares = [f"{100 * count / (num_zero + sum(counts)):.1f}" for count in [num_zero, *counts]]
        heads = ["0", "2^n_1", *(f"2^(n_1-{place})" for place in range(1, most))]
        cells = dict(zip_longest(heads, shares, fillvalue=""))
        rows.append({"run": record["name"], "bits": record["bits"], **cells})
    return table(rows)


def _kept(folder: Path, records: Sequence[Record]) -> str:
    """Return the table of files of weights."""
    paths = {folder / f"{record['name']}.safetensors": record for record in records}
    rows = [
        {
            "run": f"[{path.stem}](weights/{path.name})",
            "bits": record["bits"],
            "bytes": f"{path.stat().st_size:,}",
            "right": _right(record),
        }
        for path, record in paths.items()
        if path.is_file()
    ]
    return f"{_KEPT}\n\n{table(rows)}" if rows else ""


def _choices(folder: Path, records: Sequence[Record]) -> str:
    """Return what was tried on held-out images: the text beside the records, and a table for each kind of trial."""
    groups, of_name = groups_of(records), {record["name"]: record for record in records}
    tables: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        tables.setdefault((group.key, *(group.fields[name] for name in _IN_COMMON)), []).append(group)
    parts = [(folder / "README.md").read_text(encoding="utf-8").strip()] if records else []
    for alike in tables.values():
        network, data, bits = (alike[0].first[name] for name in ("network", "data", "bits"))
        others = differences(alike[0], [group for group in groups if group.key == alike[0].key], _IN_COMMON)
        rows = [_choice(group, alike, of_name) for group in sorted(alike, key=lambda group: -fmean(group.top1))]
        parts.append(f"### {network}, {data}, {bits} bits{others and f' ({others})'}\n\n{table(rows)}")
    return "\n\n".join(parts)


def _choice(group: Group, alike: Sequence[Group], of_name: dict[str, Record]) -> dict[str, Any]:
    pairs = [(record, record["against"]) for record in group.records if record.get("against")]
    for record, against in pairs:
        if against not in of_name or of_name[against]["seed"] != record["seed"]:
            raise ValueError(f"{record['name']}: there is no held-out run {against} with the same seed")
    changes = [record["top1"] - of_name[against]["top1"] for record, against in pairs]
    return {
        "what": differences(group, alike) or "as it is",
        "seeds": group.seeds,
        "held out": spread(group.top1),
        "range": ends(group.top1),
        "in pairs": spread(changes, "+.2f") if changes else "",
        "against": ", ".join(dict.fromkeys(against for _, against in pairs)),
        "note": "; ".join(dict.fromkeys(record["note"] for record in group.records if record["note"])),
    }
