"""The picture of the results: what is drawn, and that every reader can tell the lines apart."""

from itertools import pairwise
from typing import Any

import pytest

from benchmarks.results.groups import groups_of, main_of_each
from benchmarks.results.record import read_records
from tests.conftest import REPO

pytest.importorskip("matplotlib", reason="matplotlib draws the picture and is not installed")

_GROUPS = groups_of(read_records(REPO / "docs/results/runs"))


@pytest.fixture(scope="module")
def figure() -> Any:
    """The drawn figure of this checkout's results."""
    from matplotlib import rc_context

    from benchmarks.results.picture import PAPER, figure_of

    with rc_context(PAPER):
        found = figure_of(_GROUPS)
        found.draw_without_rendering()
    return found


def test_both_panels_are_over_the_accumulated_portion(figure: Any) -> None:
    for axes in figure.axes:
        portions = [[float(x) for x in bars.lines[0].get_xdata()] for bars in axes.containers]
        assert portions == [[stage["portion"] for stage in group.first["stages"]] for group in main_of_each(_GROUPS)]
        assert axes.get_xlabel() == "accumulated portion of frozen weights"


def test_lines_are_means_of_changes_from_float_and_bars_reach_every_seed(figure: Any) -> None:
    for axes, name in zip(figure.axes, ("top1", "top1_quantized"), strict=True):
        for group, bars in zip(main_of_each(_GROUPS), axes.containers, strict=True):
            ends = [record["stages"][-1][name] - record["float_top1"] for record in group.records]
            assert bars.lines[0].get_ydata()[-1] == pytest.approx(sum(ends) / len(ends))
            assert bars.lines[2][0].get_segments()[-1][:, 1].tolist() == pytest.approx([min(ends), max(ends)])


def test_lines_differ_in_gray_in_marker_and_in_dashes(figure: Any) -> None:
    from matplotlib.colors import to_rgb

    lines = [bars.lines[0] for bars in figure.axes[0].containers]
    grays = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (to_rgb(line.get_color()) for line in lines))
    assert min(after - before for before, after in pairwise(grays)) > 0.1
    assert len({line.get_marker() for line in lines}) == len(lines)
    assert len({line.get_linestyle() for line in lines}) == len(lines)


def test_all_stages_of_all_widths_are_within_the_panels(figure: Any) -> None:
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert all(low < y < high for bars in axes.containers for y in bars.lines[0].get_ydata())


def test_legend_titles_and_labels_are_whole_and_cover_no_panel(figure: Any) -> None:
    page = figure.bbox
    texts = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    for part in [*figure.legends, *texts]:
        box = part.get_window_extent()
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1
        assert page.y0 <= box.y0
        assert box.y1 <= page.y1
    legend = figure.legends[0].get_window_extent()
    assert legend.y1 < min(axes.xaxis.label.get_window_extent().y0 for axes in figure.axes)
