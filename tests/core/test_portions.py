import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.core.portions import check_portions, num_frozen


@given(st.lists(st.floats(0.0, 1.0, exclude_min=True), min_size=1, unique=True).map(sorted))
def test_rising_portions_are_taken(portions: list[float]) -> None:
    assert check_portions(portions) == tuple(portions)


@pytest.mark.parametrize(
    ("portions", "words"),
    [
        ([], "at least one stage"),
        ([0.5, 0.5], "larger than the one before"),
        ([0.5, 0.25, 1.0], "larger than the one before"),
        ([0.0, 1.0], r"in \(0, 1\]"),
        ([0.5, 1.01], r"in \(0, 1\]"),
        ([-0.5, 1.0], r"in \(0, 1\]"),
        ([math.nan], r"in \(0, 1\]"),
        ([0.5, math.inf], r"in \(0, 1\]"),
        (0.5, "must be a list of numbers, such as .*, got 0.5"),
        (None, "must be a list of numbers"),
        ([0.5, None], "must be a list of numbers"),
        ("0.5", "must be a list of numbers, such as .*, got '0.5'"),
    ],
)
def test_others_are_errors(portions: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_portions(portions)


def test_an_end_below_one_is_an_error_where_all_is_to_be_frozen() -> None:
    assert check_portions([0.5, 0.9]) == (0.5, 0.9)
    with pytest.raises(ValueError, match=r"must end at 1\.0, so that every weight is frozen, got 0\.5 0\.9"):
        check_portions([0.5, 0.9], complete=True)


@given(st.integers(0, 10**8))
def test_all_are_frozen_at_one(num_weights: int) -> None:
    assert num_frozen(1.0, num_weights) == num_weights


def test_num_frozen_rounds() -> None:
    assert [num_frozen(0.5, n) for n in (1, 2, 3, 5, 7)] == [0, 1, 2, 2, 4]
    assert num_frozen(0.875, 1000) == 875
