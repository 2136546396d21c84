"""Tables in Markdown, and those that the README and the page share."""

import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.results.groups import Group, differences, groups_of, main_of_each, spread
from benchmarks.results.record import read_records
from inq_ray.export.packed.reader import SUFFIX, read

NOTHING = "No run is collected yet."
_NUMBER = re.compile(r"[+-]?[\d.,]+( ± [\d.]+)?( %)?")
_PICTURE = "![change of top-1 over the portion of frozen weights, for each number of bits](docs/images/results.png)"
# What records call data and weights that a reader can get.
_OBTAINABLE = {
    "../shared/data/cifar10": "cifar10",
    "../shared/data/models/cifar10_resnet20.safetensors": "resnet20-12fca82f.th",
}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of rows with the same keys, its heads; columns of numbers are aligned to the right."""
    lines = [[str(cell) for cell in row.values()] for row in rows]
    columns = [[cell for cell in column if cell] for column in zip(*lines, strict=True)]
    marks = ["---:" if column and all(map(_NUMBER.fullmatch, column)) else "---" for column in columns]
    every = [list(rows[0]), marks, *lines] if rows else []
    return "\n".join("".join(f"| {cell} " if cell else "| " for cell in cells) + "|" for cells in every)


def readme_body(folder: Path) -> str:
    """Return what the README shows of the results in a folder: three rows for each network, and the picture."""
    groups = main_of_each(groups_of(read_records(folder / "runs")))
    if not groups:
        return NOTHING
    widths = sorted({group.first["bits"] for group in groups}, reverse=True)
    networks: dict[Any, dict[int, Group]] = {}
    for group in groups:
        networks.setdefault(group.key[:2], {})[group.first["bits"]] = group
    rows = [row for of_bits in networks.values() for row in _readme_rows(of_bits, widths, folder / "weights")]
    records = [record for group in groups for record in group.records]
    num_seeds = sorted({len(group.records) for group in groups})
    explained = (
        "Top-1 in % on the test set at the end of each run, mean ± sample standard deviation over "
        f"{' to '.join(map(str, dict.fromkeys([num_seeds[0], num_seeds[-1]])))} seeds. kB are of the file of packed "
        f"codes and float tensors. Minutes are for a whole run on {_machines(records)}. "
        "[docs/results](docs/results/README.md) has every run, the commands, and a comparison with published results."
    )
    return f"{table(rows)}\n\n{textwrap.fill(explained, 120)}\n\n{_PICTURE}"


def _machines(records: Sequence[Mapping[str, Any]]) -> str:
    machines = dict.fromkeys((record["hardware"] or record["device"], record["world_sizes"][-1]) for record in records)
    return "; ".join(f"{machine}, {num} worker" + "s" * (num > 1) for machine, num in machines)


def _readme_rows(of_bits: Mapping[int, Group], widths: Sequence[int], weights: Path) -> list[dict[str, Any]]:
    """Return accuracy, size and time of a network, a row each: a column for each width stays narrow."""
    first = next(iter(of_bits.values())).first
    kept = {bits: path for bits, group in of_bits.items() if (path := _kept(group, weights))}
    float_size = next((f"{_float_bytes(path) / 1000:,.0f}" for path in kept.values()), "")
    sizes = {bits: f"{path.stat().st_size / 1000:,.0f}" for bits, path in kept.items()}
    rows = {
        "top-1, %": (f"{first['float_top1']:.2f}", {bits: spread(group.top1) for bits, group in of_bits.items()}),
        "file, kB": (float_size, sizes),
        "minutes": ("", {bits: _minutes(group) for bits, group in of_bits.items()}),
    }
    network = f"{first['network']}, {first['data']}"
    return [
        {
            "network": network if what == "top-1, %" else "",
            "result": what,
            "float": of_float,
            **{f"{bits} bits": cells.get(bits, "") for bits in widths},
        }
        for what, (of_float, cells) in rows.items()
    ]


def _kept(group: Group, weights: Path) -> Path | None:
    """Return the file of the kept weights of one of a group's runs."""
    paths = [weights / f"{record['name']}{SUFFIX}" for record in group.records]
    return next((path for path in paths if path.is_file()), None)


def _float_bytes(path: Path) -> int:
    """Return the bytes of the tensors of the network before it was quantized."""
    return sum(tensor.nbytes for tensor in read(path).state.values())


def _minutes(group: Group) -> str:
    minutes = fmean(record["seconds"] for record in group.records) / 60
    return f"{minutes:.{0 if minutes >= 10 else 1}f}"


def main_table(groups: Sequence[Group]) -> str:
    """Return the table with a row for each group."""
    return table([_main_row(group, groups) for group in groups])


def _main_row(group: Group, groups: Sequence[Group]) -> dict[str, Any]:
    first, what = group.first, unlike(group, groups)
    return {
        "network": first["network"] + (what and f" ({what})"),
        "data": first["data"],
        "bits": first["bits"],
        "float": f"{first['float_top1']:.2f}",
        "quantized": spread(group.top1),
        "seeds": len(group.records),
        "change": f"{group.change:+.2f}",
        "epochs": first["epochs"]["all"],
        "minutes": _minutes(group),
    }


def unlike(group: Group, groups: Sequence[Group]) -> str:
    """Return what distinguishes a group from others of its network, data and bits."""
    return differences(group, [other for other in groups if other.key == group.key])


def commands(groups: Sequence[Group]) -> list[str]:
    """Return blocks with the commands of groups, on data that a reader can get; those for GPUs in their own block."""
    lines: dict[bool, list[str]] = {False: [], True: []}
    for group in groups:
        network, data, bits = (group.first[name] for name in ("network", "data", "bits"))
        what, words = unlike(group, groups), shlex.split(group.first["command"])
        title = f"# {network}, {data}, {bits} bits{what and f', {what}'}"
        command = shlex.join(_OBTAINABLE.get(word, word) for word in words)
        lines["--use-gpu" in words] += [title, command]
    marks = {False: "", True: "<!-- not run: needs a GPU -->\n"}
    return [f"{marks[gpu]}```bash\n{chr(10).join(each)}\n```" for gpu, each in lines.items() if each]
