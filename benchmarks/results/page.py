"""The page of all results."""

import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.results.choices import choices
from benchmarks.results.groups import Group, ends, groups_of, main_groups, main_of_each, spread
from benchmarks.results.published import comparison
from benchmarks.results.record import Record, read_records
from benchmarks.results.tables import NOTHING, commands, main_table, table, unlike
from inq_ray.core.codebook import num_exponents
from inq_ray.export.packed.reader import SUFFIX

_HEAD = """\
# Results

`python -m benchmarks.results write` makes this page from the files next to it, and `make results-check` fails if they
differ. Each file in docs/results/runs/ is the record of one run: configuration, command, commit, accuracies, seconds,
digest, and how many weights of each tensor have which value.

Accuracy is top-1 in % on the test set; ± is the sample standard deviation over seeds. Choices were made on images held
out of training (see [Choices](#choices)); the test set only measured the final runs."""
_DOWNLOADS = """\
Download CIFAR-10 from the Hugging Face hub (`hf` comes with `pip install huggingface_hub`) and the weights of
[akamaster/pytorch_resnet_cifar10](https://github.com/akamaster/pytorch_resnet_cifar10). inq_ray reads both as they are.

<!-- not run: downloads data and weights -->
```bash
hf download uoft-cs/cifar10 --repo-type dataset --local-dir cifar10
curl -LO https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/resnet20-12fca82f.th
```

The runs of a group have the same command, except for `--seed` and `--name`:"""
_STAGES = """\
Top-1 after each stage, mean over seeds. "Quantized" is measured right after a stage has frozen its weights, with
BatchNorm statistics brought up to date: estimated on some hundred training images for this measurement alone. "Stale":
measured before this was done, with running mean and variance from before the stage. "Re-trained" is after the stage's
epochs.

Most of the first drop of stale rows comes from the statistics. With statistics of 10,000 training images and without
training, cifar_resnet20 has 90.32, 90.30, 87.37 and 79.49 % after the first partition at 5, 4, 3 and 2 bits, instead of
80.94, 80.04, 24.12 and 9.30 % (commit 14bd13f; `INQScheduler.step`, then `estimate_batchnorm` in
inq_ray/training/evaluation/batchnorm.py)."""
_RANDOM = """\
The paper's pruning-inspired partition freezes the largest weights first. A random partition, worse in the paper, is
within seed noise here."""
_FROZEN = """\
Frozen weights of the run with the first seed at each width. Entropy is -Σ p log2 p over the values of a tensor, 0 and
±2^k, in bits per weight, averaged over weights: the size that an ideal code of single weights, with one table for each
tensor, would reach."""
_KEPT = """\
These are [packed files](../format.md) for `inq_ray.load`. A test evaluates each file on the test set, on a CPU, and
requires the same number of correct images."""


def page(folder: Path) -> str:
    """Return the whole page of the results in a folder.

    Raises:
        ValueError: A held-out run names another one that it cannot be compared with.
    """
    runs, trials = (read_records(folder / name) for name in ("runs", "choices"))
    groups = groups_of(runs)
    sections = {
        "Final runs": _final(groups) if groups else NOTHING,
        "Random and pruning-inspired partition": _partition(groups),
        "Frozen weights": _frozen([group.first for group in main_of_each(groups)]),
        "Kept weights": _kept(folder / "weights", runs),
        "Choices": choices(folder / "choices", trials),
    }
    return "\n\n".join([_HEAD, *(f"## {title}\n\n{body}" for title, body in sections.items() if body)]) + "\n"


def _final(groups: Sequence[Group]) -> str:
    shown, records = main_groups(groups), [record for group in groups for record in group.records]
    parts = [
        main_table(shown),
        comparison(groups),
        "### Every run",
        table([_run(record) for record in records]),
        "\n".join(f"- {record['name']}: {record['note']}" for record in records if record["note"]),
        f"### Stages\n\n{_STAGES}",
        *(f"**{_title(group, shown)}**\n\n{_stages(group)}" for group in shown),
        f"### Commands\n\n{_DOWNLOADS}",
        *commands(groups),
    ]
    return "\n\n".join(part for part in parts if part)


def _title(group: Group, groups: Sequence[Group]) -> str:
    what = unlike(group, groups)
    return f"{group.first['network']}, {group.first['bits']} bits" + (what and f" ({what})")


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
    """Return the mean accuracies of each stage, a column for each."""
    figures = {"quantized (stale)" if group.is_stale else "quantized": "top1_quantized", "re-trained": "top1"}
    lines: dict[str, dict[str, str]] = {name: {"portion": name} for name in figures}
    for stages in zip(*(record["stages"] for record in group.records), strict=True):
        for name, figure in figures.items():
            lines[name][f"{stages[0]['portion']:g}"] = f"{fmean(stage[figure] for stage in stages):.2f}"
    return table(list(lines.values()))


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
    return f"{_RANDOM}\n\n{table(rows)}" if rows else ""


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
    paths = {folder / f"{record['name']}{SUFFIX}": record for record in records}
    rows = [
        {
            "run": f"[{record['name']}](weights/{path.name})",
            "bits": record["bits"],
            "bytes": f"{path.stat().st_size:,}",
            "right": _right(record),
        }
        for path, record in paths.items()
        if path.is_file()
    ]
    return f"{_KEPT}\n\n{table(rows)}" if rows else ""
