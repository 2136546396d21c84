"""The page: one HTML file that loads nothing, follows light and dark, prints, and fits a phone."""

from collections.abc import Sequence
from pathlib import Path
from string import Template

from inq_ray import __version__
from inq_ray.report.html import Html, element, joined

_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="generator" content="inq_ray $version">
$title
<style>
$style</style>
</head>
<body>
$body
</body>
</html>
""")


def page(title: str, parts: Sequence[str | None]) -> str:
    """Return the file's text.

    Args:
        title: Title of the page.
        parts: What it shows, in order; None is left out.
    """
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    footer = element("footer", f"Made by inq_ray {__version__} from the files of the folder; nothing is loaded.")
    body = joined((element("main", *parts), footer))
    return _PAGE.substitute(title=element("title", title), version=__version__, style=style, body=body)


def section(title: str, *parts: str | None) -> Html | None:
    """Return a section with a heading; None if it has no parts."""
    shown = [part for part in parts if part is not None]
    return element("section", element("h2", title), *shown) if shown else None


def side_by_side(*parts: Html | None) -> Html | None:
    """Return parts next to each other if the page is wide enough; None if there are none."""
    shown = [part for part in parts if part is not None]
    return element("div", *shown, class_="side") if shown else None


def figure(title: str, caption: str, *content: Html) -> Html:
    """Return a chart or table under its title and caption."""
    text = joined((element("b", title), " ", caption))
    return element("figure", element("figcaption", text), *content)


def key_figures(figures: Sequence[tuple[str, str, str]]) -> Html:
    """Return the numbers at the top: what it is, its value, and a line about it."""
    tiles = (
        element("div", element("dt", name), element("dd", value, class_="value"), element("dd", about, class_="sub"))
        for name, value, about in figures
    )
    return element("dl", *tiles, class_="key")


def missing(problems: Sequence[str]) -> Html | None:
    """Return a box with what is missing or damaged; None if nothing is."""
    if not problems:
        return None
    lines = (element("li", line) for line in problems)
    return element("div", "What this page could not use:", element("ul", *lines), class_="missing")
