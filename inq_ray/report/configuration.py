"""Section with the options of a run, or of all trials of a sweep."""

from collections.abc import Mapping
from typing import Any

from inq_ray.report.html import Html, element, pairs
from inq_ray.report.page import section
from inq_ray.report.quantity import words
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import declared


def configuration(config: Mapping[str, Any]) -> Html | None:
    """Return the options of a run: those that differ from the defaults of an option, then all."""
    defaults = {each.name: each.default for each in declared(RunConfig).values()}
    options = dict(_options(config))
    if not options:
        return None
    changed = [(name, words(value)) for name, value in options.items() if value != _plain(defaults.get(name))]
    every = pairs((name, words(value)) for name, value in options.items())
    return section(
        "Configuration",
        element("p", "Options that differ from their defaults, by name in config.json.", class_="note"),
        pairs(changed),
        element("details", element("summary", f"All {len(options)} options"), every),
    )


def _options(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return names and values of all options, sections in the order of the program, unknown ones last."""
    flat: dict[str, Any] = {}
    for section_name, values in config.items():
        if isinstance(values, dict):
            flat |= {f"{section_name}.{name}": value for name, value in values.items()}
        else:
            flat[str(section_name)] = values
    known = [name for name in declared(RunConfig) if name in flat]
    return [(name, flat[name]) for name in [*known, *(name for name in flat if name not in set(known))]]


def _plain(value: Any) -> Any:
    """Return a default as JSON has it."""
    return list(value) if isinstance(value, tuple) else value
