"""HTML of reports: every text is escaped, and markup is not escaped twice."""

import json

import pytest

from inq_ray.report.html import Html, element, joined, pairs, table
from inq_ray.report.page import page
from inq_ray.report.quantity import change, number, percent, size, words
from tests.report.folders import HOSTILE


def test_elements() -> None:
    inner = element("b", "a < b")
    assert inner == "<b>a &lt; b</b>"
    assert element("p", inner, None, " & more", class_="x", aria_label='"q"') == (
        '<p class="x" aria-label="&quot;q&quot;"><b>a &lt; b</b> &amp; more</p>'
    )
    assert joined((Html("<i>"), "<i>")) == "<i>&lt;i&gt;"


def test_hostile_texts_are_text() -> None:
    cells = element("p", HOSTILE, title=HOSTILE)
    listed = table((HOSTILE,), [(HOSTILE,)], label=HOSTILE)
    for markup in (cells, listed, pairs([(HOSTILE, HOSTILE)]), page(HOSTILE, [element("p", HOSTILE)])):
        assert "<script" not in markup
        assert "<img" not in markup
        assert "\u202e" not in markup
        assert "\x1b" not in markup


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), (2.5, 2.5), (True, None), ("1", None), (float("nan"), None), (10**400, None), ([1], None), (None, None)],
)
def test_numbers_from_files(value: object, expected: float | None) -> None:
    assert number(value) == expected


def test_numbers_as_text() -> None:
    assert [size(each) for each in (950, 84_200, 5_400_000, 46_868_281)] == ["0.9 kB", "84 kB", "5,400 kB", "46.9 MB"]
    assert (change(91.5, 91.73), change(92.0, 91.5), change(None, 1.0)) == ("\u22120.23", "+0.50", "")
    assert (percent(91.728), percent(None), percent(float("nan"))) == ("91.73", "", "")
    assert words([0.5, 1.0]) == "0.5 1"
    assert (words(None), words(True), words({"a": [1]}), words([])) == ("none", "yes", "a 1", "none")
    assert len(words("x" * 10_000)) == 300
    assert words(json.loads("[" * 900 + "]" * 900)) == "..."
