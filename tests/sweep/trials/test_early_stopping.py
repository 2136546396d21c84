"""Comparing trials at the same portion, against NumPy and against counting."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.sweep.trials.early_stopping import Rungs, accuracy_at, is_below_median, rungs, stays

PERCENT = st.integers(0, 100).map(float)
CURVES = st.lists(st.integers(1, 100), min_size=1, max_size=6, unique=True).flatmap(
    lambda portions: st.tuples(
        st.just([0.0, *(portion / 100 for portion in sorted(portions))]),
        st.lists(PERCENT, min_size=len(portions) + 1, max_size=len(portions) + 1),
    ).map(lambda both: list(zip(*both, strict=True)))
)


@given(CURVES, st.integers(0, 100))
def test_between_two_stages_accuracy_runs_straight(curve: list[tuple[float, float]], percent: int) -> None:
    portion = percent / 100
    found = accuracy_at(curve, portion)
    if portion > curve[-1][0]:
        assert found is None
    else:
        assert found == pytest.approx(np.interp(portion, *zip(*curve, strict=True)))


def test_without_the_float_network_it_begins_with_the_first_stage() -> None:
    assert accuracy_at([(0.5, 80.0), (1.0, 60.0)], 0.2) == 80
    assert accuracy_at([], 0.2) is None


@given(st.floats(1.5, 8), st.floats(0, 1))
def test_rungs_leave_a_power_of_what_was_live(reduction: float, grace: float) -> None:
    for place, portion in enumerate(rungs(reduction, 0.0), start=1):
        assert 1 - portion == pytest.approx(reduction**-place, abs=1e-8)
    assert rungs(reduction, grace) == tuple(rung for rung in rungs(reduction, 0.0) if rung >= grace)
    assert rungs(2, 0.5) == (0.5, 0.75, 0.875, 0.9375)


@given(st.lists(PERCENT, min_size=1, max_size=12), st.sampled_from([2, 3, 4]))
def test_the_best_of_a_rung_stay(values: list[float], reduction: int) -> None:
    stay = [value for value in values if stays(value, values, reduction)]
    least = -(-len(values) // reduction)
    assert len(stay) >= least
    for value in values:
        num_better = sum(other > value for other in values)
        assert stays(value, values, reduction) == (num_better < least)


def test_trials_of_other_stages_meet_at_the_same_portion() -> None:
    """The second has .7 at .6 and so .725 at .5, which is worse than .8 at .5; the third is better there."""
    both = Rungs(2, 0.5)
    assert both.goes_on("a", 5, [(0.0, 90.0), (0.5, 80.0)])
    assert not both.goes_on("b", 5, [(0.0, 90.0), (0.3, 80.0), (0.6, 65.0)])
    assert both.goes_on("c", 5, [(0.0, 90.0), (0.3, 89.0), (0.6, 88.0)])
    assert both.goes_on("d", 3, [(0.0, 90.0), (0.5, 10.0)])  # the first of its bits


def test_what_is_shared_counts_once() -> None:
    """Were the shared end counted for each of its three trials, the other would be the worst of four, not of two."""
    shared = Rungs(2, 0.5)
    for _ in range(3):
        assert shared.goes_on("same", 5, [(0.0, 90.0), (0.5, 80.0)])
    assert not shared.goes_on("other", 5, [(0.0, 90.0), (0.5, 70.0)])
    assert shared.goes_on("same", 5, [(0.0, 90.0), (0.5, 80.0)])


def test_rungs_that_were_passed_before_are_not_asked_again() -> None:
    rung = Rungs(2, 0.5)
    assert rung.goes_on("a", 5, [(0.0, 90.0), (0.5, 80.0)])
    assert rung.goes_on("b", 5, [(0.0, 90.0), (0.5, 85.0)])
    assert rung.goes_on("a2", 5, [(0.0, 90.0), (0.5, 80.0), (0.6, 80.0)])


@given(CURVES, st.lists(CURVES, max_size=6))
def test_below_the_median(curve: list[tuple[float, float]], others: list[list[tuple[float, float]]]) -> None:
    portion, value = curve[-1]
    values = [np.interp(portion, *zip(*other, strict=True)) for other in others if other[-1][0] >= portion]
    expected = portion >= 0.4 and len(values) >= 3 and value < statistics.median(values) - 1e-9
    near = len(values) >= 3 and abs(value - statistics.median(values)) <= 1e-9
    named = {str(number): other for number, other in enumerate(others)}
    assert near or is_below_median(curve, named, 0.4) == expected
