"""How many workers a run may have: what is read, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.training.config.worker_range import WorkerRange


@given(st.integers(1, 10**9 - 1), st.integers(0, 100))
def test_what_is_written_is_read_back(least: int, more: int) -> None:
    workers = WorkerRange(least, least + more)
    assert WorkerRange.parse(str(workers)) == workers
    assert str(workers) == (f"{least}..{least + more}" if more else str(least))


@given(st.integers(1, 10**12))
def test_a_number_is_both_ends(value: int) -> None:
    assert WorkerRange.parse(value) == WorkerRange(value, value)


@given(st.text())
def test_any_text_is_a_range_or_refused_in_one_line(text: str) -> None:
    line = ""
    try:
        least, most = WorkerRange.parse(text)
    except ValueError as error:
        line = str(error)
    else:
        assert 1 <= least <= most
        return
    assert line.startswith("--num-workers ")
    assert len(line.splitlines()) == 1
    assert len(line) < 500


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "at least 1, got 0"),
        (-3, "at least 1, got -3"),
        ("0..3", "at least 1, got 0..3"),
        ("8..2", "8..2 is an empty range: did you mean 2..8"),
        ("2..", "a number, or a range such as 2..8, got '2..'"),
        ("2-8", "got '2-8'"),
        ("2...8", "got '2...8'"),
        (" 2", "got ' 2'"),
        ("", "got ''"),
        ("٢", "got '٢'"),
        ("9999999999..99999999999", "a number, or a range"),
    ],
)
def test_what_is_no_range_is_refused(value: int | str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^--num-workers") as refused:
        WorkerRange.parse(value)
    assert message in str(refused.value)
