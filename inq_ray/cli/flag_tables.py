"""Markdown tables of all flags, generated from the declarations of options: the marked part of docs/flags.md.

python -m inq_ray.cli.flag_tables docs/flags.md
"""

import re
import shlex
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inq_ray.files.whole import write_text
from inq_ray.sweep.space.options import SpaceOptions
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import Affects, Declared, declared
from inq_ray.training.config.recipes import LOSSLESS, NAMED, default_recipe, lossless_recipe, recipe
from inq_ray.training.flags.command import words_of
from inq_ray.training.flags.parse import Action

_MARKED = re.compile(r"(<!-- flags:begin -->\n).*?(\n<!-- flags:end -->)", re.DOTALL)

_TITLES = {
    "data": "Data and augmentation",
    "network": "Network",
    "quantization": "Quantization",
    "training": "Training",
    "cluster": "Workers and failures",
    "output": "Results and checkpoints",
}
_ON_RESUME = {Affects.RESULT: "no", Affects.ROUNDING: "yes, with other bits", Affects.NOTHING: "yes"}
_PLACEHOLDERS = {int: "INT", float: "FLOAT", str: "TEXT"}


def with_tables(page: str) -> str:
    """Return the page with its marked part generated again.

    Raises:
        ValueError: The page has no marks.
    """
    text, num = _MARKED.subn(lambda marks: f"{marks[1]}\n{_tables()}\n{marks[2]}", page)
    if num != 1:
        raise ValueError("the page must have <!-- flags:begin --> and then <!-- flags:end -->")
    return text


def _tables() -> str:
    run = declared(RunConfig).values()
    actions = [*declared(Action).values(), *(each for each in run if not each.section)]
    parts = ["## Actions", _table([_row(each) for each in actions])]
    for section, title in _TITLES.items():
        options = [each for each in run if each.section == section]
        rows = [{**_row(each), "may change on resume": _ON_RESUME[each.option.affects]} for each in options]
        parts += [f"## {title}", _table(rows)]
    sweep = [*declared(SpaceOptions).values(), *declared(SearchOptions).values()]
    parts += ["## Sweeps", _table([_row(each) for each in sweep]), "## Recipes", _table(_recipes())]
    return "\n\n".join(parts)


def _row(each: Declared) -> dict[str, str]:
    is_bool = each.type in (bool, bool | None)
    kinds = {each.type} if isinstance(each.type, type) else set(typing.get_args(each.type))
    if each.choices is not None:
        values = [str(choice) for choice in each.choices]
    else:
        values = [] if is_bool else [name for kind, name in _PLACEHOLDERS.items() if kind in kinds]
    flags = [each.flag, *each.option.aliases]
    if is_bool and each.default is not False:
        flags.insert(1, f"--no-{each.flag[2:]}")
    several = " ..." if typing.get_origin(each.type) is tuple else ""
    return {
        "flag": ", ".join(f"`{flag}`" for flag in flags),
        "value": ", ".join(f"`{value}`" for value in values) + several,
        "default": _default(each.default),
        "meaning": each.option.help.replace("|", "\\|"),
    }


def _default(value: Any) -> str:
    """Return a default as typed; empty if it depends on other options, or is off."""
    if value is None or value is False or value == ():
        return ""
    if value is True:
        return "on"
    values = value if isinstance(value, tuple) else (value,)
    return "`" + " ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in values) + "`"


def _recipes() -> list[dict[str, str]]:
    """Return the flags in which each recipe differs from the defaults, and `lossless` from a network's own recipe."""
    rows = [_recipe(f"`{name}`", recipe(name), RunConfig()) for name in NAMED]
    title = f"`{LOSSLESS}` (compared with the recipe of the network and bits)"
    return [*rows, _recipe(title, lossless_recipe("resnet18", 5), default_recipe("resnet18", 5))]


def _recipe(title: str, config: RunConfig, base: RunConfig) -> dict[str, str]:
    changed = [each for each in declared(RunConfig).values() if each.of(config) != each.of(base)]
    return {"recipe": title, "differs from the defaults above in": f"`{shlex.join(words_of(changed, config))}`"}


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(path: str) -> None:
    """Write the tables into a page."""
    write_text(Path(path), with_tables(Path(path).read_text(encoding="utf-8")))


if __name__ == "__main__":
    main(sys.argv[1])
