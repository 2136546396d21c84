"""Texts from outside in messages."""

import pytest

from inq_ray.files.shown import escaped, has_control, one_line, quoted, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("/data/images", "/data/images"),
        ("Übung 1", "Übung 1"),
        ("a\x1b[31mb", r"'a\x1b[31mb'"),
        ("a\nb", r"'a\nb'"),
        ("\udcff", r"'\udcff'"),
        (3, "3"),
        ("x" * 101, f"{'x' * 48}...{'x' * 48}"),
    ],
)
def test_a_value_is_shown_as_it_is_where_it_can_be_printed(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_quoted_value_is_never_long() -> None:
    assert quoted("a\x85b") == r"'a\x85b'"
    assert quoted("é") == "'é'"
    assert len(quoted("x" * 10**6)) <= 100
    assert len(quoted(["\x00"] * 1000, 60)) <= 60


def test_a_message_is_one_line() -> None:
    assert one_line("a\n  b\x1b[31m\u2028c") == r"a b\x1b[31m c"
    assert len(one_line("x" * 10**6)) <= 280
    assert escaped("a\x07\udcff") == r"a\x07\udcff"
    assert has_control("a\x9bb")
    assert not has_control("a\u200db 💥")
