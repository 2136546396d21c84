"""Tables in Markdown, and those that the README and the page share."""

import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.results.groups import Group, differences, main_groups, main_of_each, spread

_NUMBER = re.compile(r"[+-]?[\d.,]+( ± [\d.]+)?( %)?")

# Published for ResNet-20 on CIFAR-10, top-1 in percent: the method's float network, and results by bits of a weight.
_PUBLISHED: dict[str, tuple[float, dict[int, float]]] = {
    "DeepShift-Q, powers of two": (91.79, {5: 89.85}),
    "APoT, sums of powers of two, activations quantized too": (92.96, {4: 92.45, 3: 92.49, 2: 90.96}),
    "a weight-only method (its name is not kept)": (92.08, {4: 92.19, 3: 92.18, 2: 91.12}),
}
_COMPARED = """\
Beside what is published for a ResNet-20 on CIFAR-10, as changes of top-1 in points, since each began from another float
network:"""


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of rows with the same keys, its heads; columns of numbers are aligned to the right."""
    lines = [[str(cell) for cell in row.values()] for row in rows]
    columns = [[cell for cell in column if cell] for column in zip(*lines, strict=True)]
    marks = ["---:" if column and all(map(_NUMBER.fullmatch, column)) else "---" for column in columns]
    every = [list(rows[0]), marks, *lines] if rows else []
    return "\n".join("".join(f"| {cell} " if cell else "| " for cell in cells) + "|" for cells in every)


def readme_body(groups: Sequence[Group]) -> str:
    """Return what the README shows of all final runs."""
    shown = main_groups(groups)
    if not shown:
        return "No run is collected yet."
    records = [record for group in shown for record in group.records]
    machines = dict.fromkeys((record["hardware"] or record["device"], record["world_sizes"][-1]) for record in records)
    explained = (
        "Top-1 in % on the test set at each run's end: mean ± sample standard deviation over seeds. Epochs are those "
        "of all stages together; minutes are of the whole run, from its first measurement to the verified files, on "
        f"{'; '.join(f'{machine}, {num} worker' + 's' * (num > 1) for machine, num in machines)}."
    )
    picture = "![top-1 after each stage, for each number of bits](docs/images/results.png)"
    intro = "The command of each row; of its other runs only `--seed` and `--name` differ:"
    parts = [main_table(shown), textwrap.fill(explained, 120), comparison(groups), picture, intro, *commands(shown)]
    return "\n\n".join(part for part in parts if part)


def main_table(groups: Sequence[Group]) -> str:
    """Return the table with a row for each group."""
    return table([_main_row(group, groups) for group in groups])


def _main_row(group: Group, groups: Sequence[Group]) -> dict[str, Any]:
    first, what = group.first, _unlike(group, groups)
    minutes = fmean(record["seconds"] for record in group.records) / 60
    return {
        "network": first["network"] + (what and f" ({what})"),
        "data": first["data"],
        "bits": first["bits"],
        "float": f"{first['float_top1']:.2f}",
        "quantized": spread(group.top1),
        "seeds": len(group.records),
        "change": f"{group.change:+.2f}",
        "epochs": first["epochs"]["all"],
        "minutes": f"{minutes:.{0 if minutes >= 10 else 1}f}",
    }


def _unlike(group: Group, groups: Sequence[Group]) -> str:
    """Return what distinguishes a group from others of its network, data and bits."""
    return differences(group, [other for other in groups if other.key == group.key])


def comparison(groups: Sequence[Group]) -> str:
    """Return the table of changes in top-1 next to those that others have published."""
    rows = []
    for group in main_of_each(groups):
        bits, float_top1 = group.first["bits"], group.first["float_top1"]
        published = {
            method: f"{top1[bits] - base:+.2f} ({base:.2f} → {top1[bits]:.2f})" if bits in top1 else ""
            for method, (base, top1) in _PUBLISHED.items()
        }
        if group.key[:2] == ("cifar_resnet20", "cifar10") and any(published.values()):
            here = f"{group.change:+.2f} ({float_top1:.2f} → {fmean(group.top1):.2f})"
            rows.append({"bits": bits, "here": here, **published})
    return f"{_COMPARED}\n\n{table(rows)}" if rows else ""


def commands(groups: Sequence[Group]) -> list[str]:
    """Return blocks with the commands of groups, those that need a GPU in a block of their own."""
    lines: dict[bool, list[str]] = {False: [], True: []}
    for group in groups:
        network, data, bits = (group.first[name] for name in ("network", "data", "bits"))
        what, command = _unlike(group, groups), group.first["command"]
        title = f"# {network}, {data}, {bits} bits{what and f', {what}'}"
        lines["--use-gpu" in shlex.split(command)] += [title, command]
    marks = {False: "", True: "<!-- not run: needs a GPU -->\n"}
    return [f"{marks[gpu]}```bash\n{chr(10).join(each)}\n```" for gpu, each in lines.items() if each]
