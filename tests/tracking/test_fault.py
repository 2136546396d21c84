import sys

import pytest

from inq_ray.tracking.fault import warn


class _Broken:
    def write(self, _text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("GET https://user:canary@host:8080/api failed", "GET https://***@host:8080/api failed"),
        ("'postgresql+psycopg2://user:canary@host/db'", "'postgresql+psycopg2://***@host/db'"),
        ("https://token-canary@host", "https://***@host"),
        ("https://user:c@nary/canary@host/x", "https://***@host/x"),
        ("a http://u:canary@a and\nb http://u:canary@b", "a http://***@a and b http://***@b"),
        ("the server said \x1b[2J\u202e", r"the server said \x1b[2J\u202e"),
        ("https://host:8080/api?to=x of me@example.org", "https://host:8080/api?to=x of me@example.org"),
    ],
)
def test_of_addresses_user_and_password_are_left_out(text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    warn("the run goes on", OSError(text))
    assert capsys.readouterr() == ("", f"warning: the run goes on: OSError: {said}\n")


def test_a_password_is_left_out_before_the_line_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Half of it, without the @ that follows, would not be known for one."""
    for length in range(150, 210):
        warn("the run goes on", f"{'x' * length} https://user:{'canary' * 20}@host")
    err = capsys.readouterr().err
    assert "canary" not in err
    assert max(map(len, err.splitlines())) < 300


def test_an_error_without_a_text_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    warn("the run goes on", KeyError())
    assert capsys.readouterr().err == "warning: the run goes on: KeyError\n"


def test_where_nobody_can_be_told_it_is_no_fault_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", _Broken())
    warn("the run goes on", "it does not answer")
