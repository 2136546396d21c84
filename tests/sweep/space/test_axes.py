import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.core.portions import check_portions
from inq_ray.sweep.space.axes import Choices, FreeSchedules, RandomDrawer, Range
from inq_ray.sweep.space.space import BITS, EPOCHS, LR, SCHEDULE, Space, configured, point_key
from inq_ray.training.config.recipes import default_recipe

BASE = default_recipe("digits_cnn", 5)


@given(st.integers(0, 1000), st.floats(1e-6, 1.0), st.floats(1.01, 1e4), st.booleans())
def test_what_is_drawn_is_in_its_range_and_can_be_typed(seed: int, low: float, factor: float, log: bool) -> None:
    axis = Range(low, low * factor, log=log)
    value = axis.draw("lr", RandomDrawer(seed))
    assert axis.low <= value <= axis.high
    assert value in (axis.low, axis.high) or float(f"{value:.6g}") == value
    assert value == axis.draw("lr", RandomDrawer(seed))


def test_ratios_are_equally_likely_on_a_log_scale() -> None:
    drawer = RandomDrawer(0)
    values = [Range(1e-4, 1.0).draw("lr", drawer) for _ in range(2000)]
    below = sum(value < 1e-2 for value in values) / len(values)
    assert abs(below - 0.5) < 0.05
    values = [Range(1e-4, 1.0, log=False).draw("lr", drawer) for _ in range(2000)]
    assert sum(value < 1e-2 for value in values) / len(values) < 0.05


@given(st.integers(0, 1000))
def test_free_schedules_are_those_that_a_run_takes(seed: int) -> None:
    schedule = FreeSchedules((2, 4)).draw(SCHEDULE, RandomDrawer(seed))
    assert check_portions(schedule, complete=True) == schedule
    assert len(schedule) in (2, 4)
    live = [1 - portion for portion in (0.0, *schedule[:-1])]
    shares = [1 - after / before for before, after in pairwise(live)]
    assert all(0.19 <= share <= 0.81 for share in shares)


def test_what_is_drawn_under_a_name_is_independent_of_other_names() -> None:
    alone = Space({LR: Range(0.01, 0.1)})
    both = Space({BITS: Choices((5, 4, 3)), LR: Range(0.01, 0.1)})
    first, second = RandomDrawer(3), RandomDrawer(3)
    assert [alone.draw(first)[LR] for _ in range(5)] == [both.draw(second)[LR] for _ in range(5)]


def test_a_grid_is_all_combinations() -> None:
    space = Space({BITS: Choices((5, 3)), LR: Choices((0.1, 0.2, 0.3))})
    points = list(space.grid())
    assert len({point_key(point) for point in points}) == 6
    assert points[0] == {BITS: 5, LR: 0.1}
    assert points[1] == {BITS: 5, LR: 0.2}


def test_a_point_becomes_a_configuration() -> None:
    base = BASE.replace(training={"epochs_total": 9})
    config = configured(base, {SCHEDULE: (0.5, 1.0), BITS: 3, LR: 0.5, "training.momentum": 0.8})
    assert config.quantization.iterative_steps == (0.5, 1.0)
    assert (config.quantization.weight_bits, config.training.lr, config.training.momentum) == (3, 0.5, 0.8)
    assert config.training.epochs_total == 9
    assert configured(base, {EPOCHS: 4}).stage_epochs == (4, 4, 4, 4)
    each = BASE.replace(training={"epochs_each": (1, 2, 3, 4), "lr_each": (0.1, 0.2, 0.3, 0.4)})
    assert configured(each, {EPOCHS: 4}).stage_epochs == (4, 4, 4, 4)
    assert configured(each, {LR: 0.5}).lr_of(2) == 0.5
    assert point_key({SCHEDULE: [0.5, 1.0], BITS: 3}) == point_key({SCHEDULE: (0.5, 1.0), BITS: 3})


@pytest.mark.parametrize(
    ("name", "says"),
    [("training.lrr", "nearest: training.lr"), ("network.weights", "cannot be searched"), ("data.holdout", "cannot"),
     ("cluster.num_workers", "cannot"), ("output.name", "cannot"), ("plain", "cannot"),
     ("training.seed", "^training.seed cannot be searched: .* held-out.* run the sweep once for each --seed$"),
     ("training.limit_batches", "^training.limit_batches cannot be searched: .* with --limit-batches N$")],
)  # fmt: skip
def test_what_trials_have_in_common_cannot_be_searched(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Space({name: Choices((1, 2))})


@pytest.mark.parametrize(
    "make",
    [lambda: Choices(()), lambda: Choices((1, 1)), lambda: Range(1.0, 1.0), lambda: Range(0.0, 1.0), lambda: Space({}),
     lambda: Range(0.1, math.inf), lambda: FreeSchedules(()), lambda: FreeSchedules((0,)),
     lambda: FreeSchedules(least=0.5, most=0.4), lambda: Space({LR: FreeSchedules()})],
)  # fmt: skip
def test_what_is_no_axis_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=r"."):
        make()
