"""The page of all results."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.results.choices import choices
from benchmarks.results.frozen import frozen
from benchmarks.results.groups import Group, Spread, groups_of, main_groups
from benchmarks.results.places import Places
from benchmarks.results.record import Record, read_records
from benchmarks.results.tables import commands, comparison, main_table, table

_HEAD = """# Results

Made by `python -m benchmarks.results write` from the files beside it; `make results-check` fails where they differ. A
file in docs/results/runs/ is what is kept of one run: configuration, command, commit, accuracies, seconds, digest, and
how many weights of each tensor are at which level. Accuracies are top-1 in %, and ± is the sample standard deviation
over seeds."""


def page(places: Places) -> str:
    """The whole page.

    Raises:
        ValueError: a file of a run or of a choice is not what it should be.
    """
    runs, tried = read_records(places.runs), read_records(places.choices)
    groups = groups_of(runs)
    sections = [
        _HEAD,
        _section("Final runs", _final(groups)),
        _section("Random against pruning-inspired partition", _partition(groups)),
        _section("The frozen weights", frozen(groups)),
        _section("Kept weights", _kept(places, runs)),
        _section("Choices", choices(tried)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _section(title: str, body: str) -> str:
    return body and f"## {title}\n\n{body}"


def _final(groups: Sequence[Group]) -> str:
    if not groups:
        return "No run is collected yet."
    shown = main_groups(groups)
    heads = ("run", "bits", "strategy", "seed", "float", "top-1", "images", "images/s", "minutes", "commit", "digest")
    rows = [_run(record) for group in groups for record in group.records]
    stages = [f"{group.first['bits']} bits: {_stages(group)}" for group in shown]
    parts = [
        main_table(shown) if shown else "",
        comparison(groups),
        "Every run; all other figures are in its file.",
        table(heads, rows, left=1),
        "Top-1 after each stage, mean over seeds, right after quantizing → re-trained:",
        "\n".join(f"- {line}" for line in stages),
        "The command of each group; of its other runs only `--seed` and `--name` differ:",
        *commands(groups),
    ]
    notes = [f"- {record['name']}: {record['note']}" for group in groups for record in group.records if record["note"]]
    return "\n\n".join(part for part in [*parts, "\n".join(notes)] if part)


def _run(record: Record) -> tuple[str, ...]:
    """A run's row."""
    return (
        f"[{record['name']}](runs/{record['name']}.json)",
        str(record["bits"]),
        record["strategy"],
        str(record["seed"]),
        f"{record['float_top1']:.2f}",
        f"{record['top1']:.2f}",
        f"{record['num_correct']:,} of {record['num_images']:,}",
        f"{record['images_per_second'] or 0:,.0f}",
        f"{record['seconds'] / 60:.1f}",
        record["commit"][:7],
        f"`{record['digest'][:16]}`",
    )


def _stages(group: Group) -> str:
    """Accuracies by portion."""
    words = []
    for number, stage in enumerate(group.first["stages"]):
        before, after = (
            Spread(tuple(record["stages"][number][figure] for record in group.records)).mean
            for figure in ("top1_quantized", "top1")
        )
        words.append(f"{stage['portion']:g}: {before:.2f} → {after:.2f}")
    return "; ".join(words)


def _partition(groups: Sequence[Group]) -> str:
    """Groups that differ in their strategy alone, beside each other."""
    rows = []
    for group in groups:
        alike = [other for other in groups if _without_strategy(other) == _without_strategy(group)]
        if len(alike) < 2:
            continue
        base = next((other for other in alike if other.first["strategy"] == "pruning"), alike[0])
        first, top1 = group.first, group.top1
        against = "" if group is base else f"{top1.mean - base.top1.mean:+.2f}"
        rows.append(
            (
                first["network"],
                first["strategy"],
                str(first["bits"]),
                group.seeds,
                top1.text(),
                top1.ends(),
                f"{group.change.mean:+.2f}",
                against,
            )
        )
    if not rows:
        return ""
    heads = ("network", "strategy", "bits", "seeds", "top-1", "range", "against float", "against pruning")
    return table(heads, rows, left=2)


def _without_strategy(group: Group) -> dict[str, str]:
    return {name: value for name, value in group.fields.items() if name != "quantization.strategy"}


def _kept(places: Places, runs: Sequence[Record]) -> str:
    """The files of weights, each of which is one of the runs."""
    of_name = {record["name"]: record for record in runs}
    rows = []
    for path in sorted(places.weights.glob("*.safetensors")):
        if path.stem not in of_name:
            raise ValueError(f"{path}: there is no {path.stem}.json of its run in {places.runs}")
        record = of_name[path.stem]
        correct = f"{record['num_correct']:,} of {record['num_images']:,}"
        rows.append((f"[{path.stem}](weights/{path.name})", str(record["bits"]), _bytes(path), correct))
    if not rows:
        return ""
    text = (
        "Codes at their bits, and what stays float; `restore` of benchmarks/results/kept.py makes of such a file what "
        "`load_state_dict` takes. A test evaluates each on the test set, on a CPU, and must count as many images."
    )
    return f"{text}\n\n{table(('run', 'bits', 'bytes', 'right'), rows)}"


def _bytes(path: Path) -> str:
    return f"{path.stat().st_size:,}"
