"""Texts from outside in messages."""

import pytest

from inq_ray.files.shown import counted, escaped, has_control, one_line, quoted, shown


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


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no s3://AKIA:HUSH@b/x here", "no s3://...@b/x here"),
        ("s3:/AKIA:HU/SH@b", "s3:/...@b"),
        ("/here/S3:AKIA:HUSH@b", "/here/S3:...@b"),
        ("s3:/AKIAX:7/HUSH@b", "s3:/...@b"),
        ("gs:/HUSH@b/x", "gs:/...@b/x"),
        ("s3//AKIAABCDEFGHIJKLMNOP/HUSH@b", "s3//...@b"),
        ("(https://host/x?token=HUSH): again", "(https://host/x?token=...): again"),
        ("https://HUSH@host/x", "https://...@host/x"),
        ("https://host/x?a=1&X-Amz-Signature=HUSH&b=2", "https://host/x?a=1&X-Amz-Signature=...&b=2"),
        ("s3//AKIAABCDEFGHIJKLMNOP:HUSH@b", "s3//...@b"),
    ],
)
def test_keys_in_addresses_are_left_out(text: str, line: str) -> None:
    assert (shown(text), one_line(text), quoted(text)) == (line, line, repr(line))


@pytest.mark.parametrize(
    "text",
    [
        "s3://anonymous@b/x:y@z",
        "s3://b/img:1@2x.png",
        "hdfs://host:8020/a@b",
        "file:///a/b:c@d",
        "/a/x:y@z",
        "E: a:b@c",
    ],
)
def test_other_addresses_stay(text: str) -> None:
    assert shown(text) == text


def test_a_key_is_left_out_before_the_line_is_cut() -> None:
    for length in range(200, 300):
        assert "HUSH" not in one_line(f"{'x' * length} s3:/me:{'HUSH' * 20}@bucket {'x' * 100}")


def test_a_noun_has_the_form_of_its_number() -> None:
    assert [counted(each, "image") for each in (0, 1, 2, 1000)] == ["0 images", "1 image", "2 images", "1,000 images"]
    assert [counted(each, "class") for each in (1, 2)] == ["1 class", "2 classes"]
