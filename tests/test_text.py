"""Texts from outside in messages."""

import pytest
from inq_ray.text import one_line, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("conv1.weight", "conv1.weight"),
        ("Gewicht äöü", "Gewicht äöü"),
        ("a\nb\x1b[31m", r"a\nb\x1b[31m"),
        ("\u202e'\ud800", r"\u202e'\ud800"),
        ("", ""),
    ],
)
def test_what_cannot_be_printed_is_escaped(text: str, expected: str) -> None:
    assert one_line(text) == expected


@pytest.mark.parametrize("most", [10, 60, 280])
@pytest.mark.parametrize("length", [9, 10, 11, 280, 281, 100_000])
def test_what_is_too_long_loses_its_middle(most: int, length: int) -> None:
    text = "".join(chr(ord("a") + index % 26) for index in range(length))
    line = one_line(text, most)
    assert len(line) == min(length, most)
    assert (line == text) == (length <= most)
    assert text.startswith(line.partition("...")[0])
    assert text.endswith(line.rpartition("...")[2])


def test_values_are_shown_by_repr() -> None:
    assert shown("0.weight") == "'0.weight'"
    assert shown([1, None]) == "[1, None]"
    assert len(shown(["\x1b"] * 1000)) == 100
