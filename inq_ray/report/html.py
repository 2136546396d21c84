"""HTML elements. Every text is escaped, unless it is already :class:`Html`."""

import html
from collections.abc import Collection, Iterable, Sequence

from inq_ray.files.shown import escaped

# Elements without an end tag.
_EMPTY = frozenset({"br", "meta"})


class Html(str):
    """Markup, which is not escaped again."""

    __slots__ = ()


def element(name: str, *children: str | None, **attributes: str) -> Html:
    """Return an element.

    Args:
        name: Name of the element.
        children: Texts, which are escaped, and elements; None is left out.
        attributes: Attributes; an underscore at the end of a name is removed, others become dashes.
    """
    words = [f' {key.removesuffix("_").replace("_", "-")}="{_text(value)}"' for key, value in attributes.items()]
    start = f"<{name}{''.join(words)}>"
    return Html(start if name in _EMPTY else f"{start}{joined(children)}</{name}>")


def joined(children: Iterable[str | None]) -> Html:
    """Return texts, which are escaped, and elements as one piece of markup; None is left out."""
    return Html("".join(each if isinstance(each, Html) else _text(each) for each in children if each is not None))


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str | None]],
    *,
    label: str,
    texts: Collection[str] = (),
    prose: Collection[str] = (),
) -> Html:
    """Return a table in a box of its own, which scrolls if the page is too narrow.

    Args:
        head: Names of the columns.
        rows: Cells of each row.
        label: Name of the table for screen readers.
        texts: Columns that are not numbers, and so begin at the left.
        prose: Columns of long texts, which wrap.
    """
    kinds = ["text wide" if name in prose else "text" if name in texts else "number" for name in head]
    titles = [element("th", name, class_=kind, scope="col") for name, kind in zip(head, kinds, strict=True)]
    body = [
        element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    ]
    content = element("table", element("thead", element("tr", *titles)), element("tbody", *body))
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")


def pairs(rows: Iterable[tuple[str, str]]) -> Html:
    """Return a table of names and values, which may be long and wrap."""
    cells = (element("tr", element("th", name, scope="row"), element("td", value)) for name, value in rows)
    return element("table", element("tbody", *cells), class_="pairs")


def _text(text: str) -> str:
    """Return a text without characters that change its direction or end a line, and escaped."""
    return html.escape(escaped(text))
