"""What was tried on images held out of training: float networks, and a table of questions."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.results.groups import Group, groups_of, spread
from benchmarks.results.record import Record
from benchmarks.results.tables import table

# Fields that two sides of a question may differ in without being named: where they ran, and what columns show.
_UNNAMED = ("cluster.", "network.weights", "training.precision")


def choices(folder: Path, records: Sequence[Record]) -> str:
    """Return the text next to the records, with the tables of float networks and of questions in their places.

    Args:
        folder: Folder of the records and of README.md, which has a comment for each table.
        records: Records of held-out runs.

    Raises:
        ValueError: A run names another one that it cannot be compared with, or a float network is not described.
    """
    if not records:
        return ""
    networks = json.loads((folder.parent / "networks.json").read_text(encoding="utf-8"))
    text = (folder / "README.md").read_text(encoding="utf-8").strip()
    text = text.replace("<!-- networks -->", _networks(networks))
    return text.replace("<!-- questions -->", _questions(records, networks)).replace("<!-- notes -->", _notes(records))


def _networks(networks: Sequence[Record]) -> str:
    rows = [
        {
            "name": each["name"],
            "network": f"`{each['network']}`",
            "training": each["training"],
            "held out, %": f"{each['top1']:.2f}",
            "loss": _loss(each["loss"]),
            "calibrated loss": _loss(each["calibrated_loss"]),
        }
        for each in networks
    ]
    return table(rows)


def _questions(records: Sequence[Record], networks: Sequence[Record]) -> str:
    """Return a row for each group of runs that are compared with others."""
    of_name = {record["name"]: record for record in records}
    # Sorting is stable: the widest first within a question.
    asking = [group for group in groups_of(records) if group.first.get("against")]
    rows, last = [], None
    for group in sorted(asking, key=lambda group: group.first["question"]):
        row = _question(group, of_name, networks)
        if row["question"] == last:
            row["question"] = ""
        else:
            last = row["question"]
        rows.append(row)
    return table(rows)


def _question(group: Group, of_name: dict[str, Record], networks: Sequence[Record]) -> dict[str, Any]:
    others = []
    for record in group.records:
        other = of_name.get(record["against"])
        if other is None or other["seed"] != record["seed"]:
            raise ValueError(f"{record['name']}: there is no held-out run {record['against']} with the same seed")
        others.append(other)
    base = Group(others)
    changes = [record["top1"] - other["top1"] for record, other in zip(group.records, others, strict=True)]
    names = [_network(each.first, networks) for each in (group, base)]
    epochs = [_epochs(each.first) for each in (group, base)]
    sides = [
        _side(one, other, names, epochs, index) for index, (one, other) in enumerate([(group, base), (base, group)])
    ]
    return {
        "question": group.first["question"],
        "bits": group.first["bits"],
        "network": names[0] if names[0] == names[1] else "",
        "epochs": epochs[0] if epochs[0] == epochs[1] else "",
        "A": sides[0],
        "B": sides[1],
        "A, %": _linked(group),
        "B, %": _linked(base),
        "A - B": spread(changes, "+.2f"),
        "seeds": len(changes),
        "loss A, B": _losses(group.first, base.first),
    }


def _side(one: Group, other: Group, names: Sequence[str], epochs: Sequence[str], index: int) -> str:
    """Return what one side has and the other has not."""
    differ = [name for name in one.fields if one.fields[name] != other.fields[name]]
    words = [names[index]] if names[0] != names[1] else []
    words += [f"epochs {epochs[index]}"] if epochs[0] != epochs[1] else []
    named = [name for name in differ if not name.startswith((*_UNNAMED, "training.epochs"))]
    return ", ".join([*words, *(f"{name.rpartition('.')[2]} {one.fields[name]}" for name in named)])


def _network(record: Record, networks: Sequence[Record]) -> str:
    """Return the name of a run's float network."""
    weights = record["config"]["network"]["weights"]
    for each in networks:
        if each["network"] == record["network"] and weights in each["weights"]:
            return str(each["name"])
    raise ValueError(f"{record['name']}: networks.json does not describe {weights} of {record['network']}")


def _epochs(record: Record) -> str:
    limit = record["config"]["training"]["limit_batches"]
    return "+".join(map(str, record["epochs"]["by_stage"])) + (f", {limit} batches each" if limit else "")


def _linked(group: Group) -> str:
    return f"[{fmean(group.top1):.2f}](choices/{group.first['name']}.json)"


def _losses(one: Record, other: Record) -> str:
    """Return the losses of both, the calibrated ones if both have them."""
    for kind, mark in (("calibrated_loss", " c"), ("loss", "")):
        if kind in one and kind in other:
            return f"{_loss(one[kind])}, {_loss(other[kind])}{mark}"
    return ""


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _notes(records: Sequence[Record]) -> str:
    """Return the remarks on runs, one line for runs with the same."""
    runs: dict[str, list[str]] = {}
    for record in records:
        if record["note"]:
            runs.setdefault(record["note"], []).append(f"[{record['name']}](choices/{record['name']}.json)")
    return "\n".join(f"- {', '.join(names)}: {note}" for note, names in runs.items())
