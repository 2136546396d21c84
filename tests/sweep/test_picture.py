"""Pictures of sweeps: what is drawn, in which color, and that no label covers another."""

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.sweep.parallel_plot import lower_fence, parallel_axes, spread_out, thinned
from inq_ray.sweep.space.space import BITS, LR, SCHEDULE, configured
from inq_ray.sweep.trials.report import End
from inq_ray.sweep.trials.trial import Trial
from inq_ray.training.config.recipes import default_recipe

pytestmark = pytest.mark.system

_SCHEDULES = [(0.5, 0.75, 1.0), (0.5, 1.0), (0.3, 0.6, 0.8, 1.0)]


def trial_of(number: int, top1: float | None, **point: Any) -> Trial:
    """Return a trial that ended with a top-1, or was stopped after its first stage."""
    values = {SCHEDULE: _SCHEDULES[0], BITS: 5, LR: 0.01, **{f"training.{name}": each for name, each in point.items()}}
    config = configured(default_recipe("digits_cnn", 5), values)
    status: Any = "stopped" if top1 is None else "done"
    trial = Trial(name=f"t{number:03}", number=number, point=values, config=config, keys={}, status=status, top1=top1)
    portions = (0.0, *trial.schedule)[: 2 if top1 is None else None]
    trial.ends = [
        End(stage=stage, portion=portion, top1=(top1 or 90.0) if stage else 99.0, seconds=1.0, how="trained")
        for stage, portion in enumerate(portions)
    ]
    return trial


def many_trials(num: int) -> list[Trial]:
    """Return trials with random schedules, rates and results; each fifth was stopped."""
    draws = random.Random(0)
    found = []
    for number in range(num):
        top1 = None if number % 5 == 4 else 98 + draws.randint(-30, 30) / 50
        trial = trial_of(number, top1, lr=round(10 ** draws.uniform(-4, -1), 6), epochs=draws.choice([1, 2, 4]))
        trial.point = {**trial.point, SCHEDULE: draws.choice(_SCHEDULES), BITS: draws.choice([3, 4, 5])}
        found.append(trial)
    return found


def figure_of(trials: Sequence[Trial]) -> Any:
    """Return the drawn figure."""
    pytest.importorskip("matplotlib", reason="matplotlib draws the picture and is not installed")
    from inq_ray.sweep.picture import figure_of as drawn

    figure = drawn(trials, "title")
    figure.draw_without_rendering()
    return figure


def _overlap(boxes: Sequence[Any]) -> bool:
    # A pixel of tolerance: boxes of lines of text touch.
    return any(
        one.x0 < other.x1 and other.x0 < one.x1 and one.y0 + 1 < other.y1 and other.y0 + 1 < one.y1
        for index, one in enumerate(boxes)
        for other in boxes[:index]
    )


def test_curves_are_top1_over_portion_after_each_stage() -> None:
    left = figure_of([trial_of(1, 97.5), trial_of(2, None)]).axes[0]
    curves = [list(map(float, line.get_xdata())) for line in left.lines]
    assert curves[:2] == [[0.5, 0.75, 1.0], [0.5]]
    assert list(left.lines[0].get_ydata()) == [97.5] * 3
    assert left.get_title() == "float network: 99.00 %"


def test_the_better_a_trial_the_darker_its_color_also_in_gray() -> None:
    results = [97.0, 98.5, 98.0, 97.5]
    left = figure_of([trial_of(number, top1) for number, top1 in enumerate([*results, None])]).axes[0]
    grays = {}
    for line in left.lines:
        if len(line.get_ydata()) == 3:
            red, green, blue, _ = line.get_color()
            grays[float(line.get_ydata()[0])] = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    assert sorted(grays, key=lambda top1: -grays[top1]) == sorted(results)
    assert [line.get_linestyle() for line in left.lines if len(line.get_ydata()) == 1] == ["--"]
    widths = {float(line.get_ydata()[0]): line.get_linewidth() for line in left.lines if len(line.get_ydata())}
    assert max(widths, key=lambda top1: widths[top1]) == 98.5


@pytest.mark.parametrize("num", [4, 30])
def test_no_label_covers_another_and_the_legend_covers_nothing(num: int) -> None:
    figure = figure_of(many_trials(num))
    left, right = figure.axes[:2]
    labels = [text for text in right.texts if text.get_text()]
    for index in range(len(right.get_xticks())):
        column = [text.get_window_extent() for text in labels if index <= text.get_position()[0] < index + 1]
        assert column
        assert not _overlap(column)
    legend, below = left.get_legend().get_window_extent(), left.xaxis.label.get_window_extent()
    assert not _overlap([legend, left.get_window_extent(), below])
    assert not _overlap([legend, right.get_window_extent()])


def test_every_value_of_30_trials_is_written_at_its_axis() -> None:
    trials = many_trials(30)
    written = [text.get_text() for text in figure_of(trials).axes[1].texts]
    rates = {f"{trial.point[LR]:g}" for trial in trials}
    results = {f"{trial.top1:.2f}" for trial in trials if trial.top1 is not None}
    assert {"3", "4", "5", "1", "2", "0.5,0.75,1", "0.5,1", "0.3,0.6,0.8,1"} | rates <= {*written}
    assert {text.partition("  ")[0] for text in written if "  t0" in text} == results


def test_numbers_rise_on_their_axis_and_many_of_them_lie_by_size() -> None:
    axes = {axis.name: axis for axis in parallel_axes([trial_of(n, 90.0 + n, lr=10.0**-n) for n in range(3)])}
    assert axes["lr"].marks == [("0.01", 0.0), ("0.1", 0.5), ("1", 1.0)]
    assert axes["weight_bits"].marks == [("5", 0.5)]
    assert [text for text, _ in axes["top-1, %"].marks] == ["90.00  t000", "91.00  t001", "92.00  t002"]
    lr = parallel_axes([trial_of(n, 90.0, lr=2.0**-n) for n in range(11)])[2]
    assert [height for _, height in lr.marks] == pytest.approx([n / 10 for n in range(11)])


def test_values_of_other_kinds_are_written_too() -> None:
    axis = parallel_axes([trial_of(n, 90.0, clip_grad_norm=value) for n, value in enumerate([None, 1.0])])[-2]
    assert [text for text, _ in axis.marks] == ["None", "1"]


def test_an_outlier_leaves_room_for_the_others() -> None:
    results = [11.0, *(97 + number / 10 for number in range(9))]
    trials = [trial_of(number, top1) for number, top1 in enumerate(results)]
    assert lower_fence(results) == 97.0
    assert lower_fence([98.34, 98.34, 98.5, 98.5, 98.46]) == 98.34, "little is won"
    left = figure_of(trials).axes[0]
    assert left.get_ylim()[0] > 96
    assert [text.get_text() for text in left.texts] == ["3 values below"]
    marks = parallel_axes(trials)[-1].marks
    assert marks[0] == ("11.00  t000", 0.0)
    assert marks[1][1] == pytest.approx(0.08)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.08))
def test_labels_are_apart_in_order_and_inside(heights: list[float], gap: float) -> None:
    heights = sorted(heights)
    found = spread_out(heights, gap)
    assert all(after - before >= gap - 1e-9 for before, after in pairwise(found))
    assert found[0] >= -1e-9
    assert found[-1] <= 1 + 1e-9
    if all(after - before >= gap for before, after in pairwise(heights)):
        assert found == pytest.approx(heights)


def test_of_too_many_labels_the_ends_stay() -> None:
    marks = [(str(number), number / 9) for number in range(10)]
    assert [text for text, _ in thinned(marks, 4)] == ["0", "3", "6", "9"]
    assert thinned(marks, 10) is marks


def test_a_picture_is_written_whatever_there_is_to_show(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib draws the picture and is not installed")
    from inq_ray.sweep.picture import draw

    trials = [trial_of(1, 97.25), trial_of(2, 96.5), trial_of(3, None)]
    trials[1].ends = trials[1].ends[:1]
    for some in (trials, trials[2:], trials[1:2], []):
        path = tmp_path / f"{len(some)}.png"
        draw(some, path, "title")
        assert path.read_bytes().startswith(b"\x89PNG")
    draw(trials, tmp_path / "picture.svg", "digits_cnn on a$_$b")  # no formula
    assert "t001" in (tmp_path / "picture.svg").read_text()
