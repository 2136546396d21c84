"""Charts as inline SVG: drawn by matplotlib, with colors of the page, so that they follow light, dark and print."""

import importlib.util
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from inq_ray.files.shown import escaped
from inq_ray.report.html import Html, element

# Colors of the page. matplotlib draws each as a color of its own, which is then replaced by the CSS variable.
INK, MUTED, GRID, ACCENT, SECOND, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", ACCENT: "accent", SECOND: "second", PAPER: "paper"}

# Points of the drawing, which the page scales: text of 10 points has about 10 pixels on a phone.
WIDTH = 360.0
_FONT_POINTS = 10.0
_POINTS_PER_INCH = 72.0
# Average width of a character of text in this size.
_CHARACTER_POINTS = 5.6
_LONGEST_NAME = 26

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": _FONT_POINTS,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "xtick.major.width": 0.6,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "lines.markersize": 5,
    "hatch.linewidth": 0.6,
}


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def chart(
    name: str,
    label: str,
    draw: Callable[[Any], None],
    *,
    height: float = 190.0,
    left: float = 38.0,
    below: float = 34.0,
) -> Html:
    """Return a chart.

    Args:
        name: Name that is unique in the page.
        label: Description for screen readers.
        draw: Draws into matplotlib's axes.
        height: Height in points; the width is WIDTH.
        left: Points left of the axes.
        below: Points below the axes.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), mpl.rc_context():
        # A name has letters that matplotlib's own font lacks, or a number is near the limits of floats.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        mpl.rcdefaults()
        mpl.rcParams.update({**_STYLE, "svg.hashsalt": name})
        figure = Figure(figsize=(WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH), facecolor="none")
        FigureCanvasSVG(figure)
        above, right = 10.0, 12.0
        box = (left / WIDTH, below / height, 1 - (left + right) / WIDTH, 1 - (below + above) / height)
        axes = figure.add_axes(box, facecolor="none")
        draw(axes)
        content = io.StringIO()
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(content.getvalue(), name, label)


def _inline(svg: str, name: str, label: str) -> Html:
    """Return a file's SVG as an element of the page, with the page's colors and fonts and names of its own."""
    content = svg[svg.index("<svg") :]
    view = re.search(r'viewBox="([^"]*)"', content)
    assert view is not None
    content = content[content.index(">") + 1 : content.rindex("</svg>")]
    content = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", content, flags=re.DOTALL)
    content = re.sub(r"font-family: [^;\"]*;? ?", "", content)
    content = re.sub("#0[1-6]0[1-6]0[1-6]", lambda match: f"var(--{_VARIABLES[match[0]]})", content)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]*)', content))
    content = re.sub(r' id="([^"]*)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", content)
    content = re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", content)
    content = re.sub(r"\s*\n\s*", "\n", re.sub(r" transform=\"rotate\(-0 [^)]*\)\"", "", content))
    return element("svg", Html(content.replace("xlink:href", "href")), viewBox=view[1], role="img", aria_label=label)


def margin_of(names: Sequence[str]) -> float:
    """Return the points that these names need left of the axes."""
    return 10 + _CHARACTER_POINTS * max((len(short_name(name)) for name in names), default=0)


def short_name(name: str) -> str:
    """Return a name for an axis; the middle of a long one is left out."""
    text, half = escaped(name), _LONGEST_NAME // 2 - 1
    return text if len(text) <= _LONGEST_NAME else f"{text[:half]}\u2026{text[-half:]}"


def name_rows(axes: Any, names: Sequence[str]) -> None:
    """Write a name at each row of a chart, from the top."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [short_name(name) for name in names])
    axes.tick_params(axis="y", colors=INK, pad=4)


def height_of(num_rows: int) -> float:
    """Return the points that a chart with this many rows needs."""
    return 44 + 15.0 * max(1, num_rows)
