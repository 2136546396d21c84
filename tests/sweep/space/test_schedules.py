from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.core.portions import check_portions
from inq_ray.sweep.space.schedules import Rising, as_text, bar, from_shares, generated, parse_schedule

RISING: list[Rising] = ["geometric", "linear"]


def test_the_papers_halves_are_geometric() -> None:
    assert generated(4, 0.5, "geometric") == (0.5, 0.75, 0.875, 1.0)


def test_linear_stages_freeze_the_same_number() -> None:
    assert generated(4, 0.4, "linear") == (0.4, 0.6, 0.8, 1.0)


@given(st.integers(1, 8), st.floats(0.02, 0.7), st.sampled_from(RISING))
def test_generated_schedules_are_those_that_a_run_takes(num_stages: int, first: float, rising: Rising) -> None:
    portions = generated(num_stages, first, rising)
    assert check_portions(portions, complete=True) == portions
    assert len(portions) == num_stages
    if num_stages > 1:
        assert portions[0] == pytest.approx(first, abs=1e-4)


@given(st.lists(st.floats(0.05, 0.95), max_size=8))
def test_freely_rising_schedules_too(shares: list[float]) -> None:
    portions = from_shares(shares)
    assert check_portions(portions, complete=True) == portions
    live = 1.0
    for share in shares[: len(portions) - 1]:
        live *= 1 - share
    assert all(after > before for before, after in pairwise(portions))
    if len(portions) == len(shares) + 1 and shares:
        assert portions[-2] == pytest.approx(1 - live, abs=1e-4)


@given(st.lists(st.floats(0.05, 0.95), max_size=8))
def test_text_is_read_back(shares: list[float]) -> None:
    portions = from_shares(shares)
    assert parse_schedule(as_text(portions)) == portions
    assert len(bar(portions)) == len(portions)
    assert bar(portions)[-1] == "█"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0.5,a", "not a list of portions"),
        ("0.5,0.4,1", "larger than the one before"),
        ("0.5", "end at 1"),
        ("", "not a list of portions"),
    ],
)
def test_what_is_no_schedule_is_named(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"^--schedules: .*{says}"):
        parse_schedule(text)


@pytest.mark.parametrize(
    ("num_stages", "first", "says"), [(0, 0.5, "--num-stages"), (3, 1.0, "--first"), (30, 0.9, "too close")]
)
def test_what_cannot_be_generated_is_named(num_stages: int, first: float, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        generated(num_stages, first, "geometric")
