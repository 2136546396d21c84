"""benchmark.json, tables and picture."""

import dataclasses
import json
from pathlib import Path

import pytest

from inq_ray.benchmark.advice import advise
from inq_ray.benchmark.figures import QUANTITIES, Figure, World, write_figures
from inq_ray.benchmark.link import bus_bandwidth
from inq_ray.benchmark.picture import draw
from inq_ray.benchmark.step import plan
from inq_ray.benchmark.subject import EPOCH_STEPS, FULL, PORTIONS, QUICK
from inq_ray.benchmark.tables import lines_of, tables_of, worlds_table
from tests.benchmark.worlds import made_world


def test_a_figure_has_median_minimum_and_paired_ratio() -> None:
    figure = Figure.of("step", [3.0, 1.0, 8.0], portion=0.5, gradients="live", reference=[4.0, 2.0, 10.0])
    assert (figure.median, figure.least, figure.count, figure.ratio, figure.unit) == (3.0, 1.0, 3, 0.75, "s")


def test_the_file_has_every_figure_with_its_unit(tmp_path: Path) -> None:
    worlds = [made_world(1), made_world(2)]
    path = tmp_path / "benchmark.json"
    write_figures(path, {"command": "inq-ray benchmark"}, worlds, advise(worlds, 64))
    read = json.loads(path.read_text())
    assert list(read) == ["format_version", "command", "worlds", "advice"]
    assert [World.from_dict(entry) for entry in read["worlds"]] == worlds
    assert [set(entry) for entry in read["advice"]] == [{"flag", "reason"}] * len(read["advice"])
    for entry in read["worlds"]:
        for figure in entry["figures"]:
            assert figure["unit"] == QUANTITIES[figure["what"]]
            assert figure["count"] >= 1
            assert figure["least"] <= figure["median"]
    with pytest.raises(ValueError, match=r"^--output .* cannot be written"):
        write_figures(tmp_path / "missing" / "benchmark.json", {}, worlds, [])


def test_tables_fit_on_a_terminal_of_80_columns() -> None:
    slow = made_world(16, compute=40.0, exchange=59.9)
    for world in (slow, made_world(1, compute=99.0)):
        for table in (*tables_of(world), worlds_table([made_world(1), slow], 65536)):
            assert {len(row) for row in table.rows} == {len(table.heads)}
            widths = [max(map(len, column)) for column in zip(table.heads, *table.rows, strict=True)]
            assert 1 + sum(width + 2 for width in widths) <= 80, table.title
            assert len(table.title) <= 80
        assert all(len(line) <= 80 for line in lines_of(world))
    assert len(tables_of(slow)) == 3


def test_with_one_worker_there_is_no_exchange() -> None:
    (table,) = tables_of(made_world(1))
    assert table.heads[:2] == ("frozen", "step")
    assert [row[0] for row in table.rows] == [f"{portion:g}" for portion in PORTIONS]
    assert all("link" not in line for line in lines_of(made_world(1)))


def test_bandwidth_is_that_of_nccl_tests() -> None:
    assert bus_bandwidth(100, 2.0, 2) == 50.0  # on two workers that of the message
    assert bus_bandwidth(100, 2.0, 8) == 87.5
    assert bus_bandwidth(100, 2.0, 1) == 0.0


@pytest.mark.parametrize("effort", [FULL, QUICK])
@pytest.mark.parametrize("seconds", [1e-5, 1e-3, 0.1, 1.0, 60.0])
def test_the_time_of_steps_is_bounded(effort: object, seconds: float) -> None:
    assert effort in (FULL, QUICK)
    bounds = FULL if effort is FULL else QUICK
    num_steps, num_rounds = plan(bounds, seconds, 5)
    assert 1 <= num_steps <= EPOCH_STEPS
    assert bounds.num_rounds <= num_rounds <= bounds.most_rounds
    if num_rounds > bounds.num_rounds:
        assert num_steps * num_rounds * 5 * seconds <= bounds.portion_seconds


def test_the_picture_is_drawn_for_any_number_of_worlds(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture is drawn by it")
    worlds = [made_world(1), made_world(2), made_world(4)]
    for count in (1, 3):
        path = tmp_path / f"{count}.svg"
        draw(worlds[:count], 64, path, "title")
        assert path.read_text().startswith("<?xml")


def test_worlds_compare_with_the_first() -> None:
    one, two = made_world(1, compute=2.0), made_world(2, compute=1.0, exchange=0.0)
    assert worlds_table([one, two], 64).rows == [("1", "32.0", "1.00", "100 %"), ("2", "64.0", "2.00", "100 %")]
    assert dataclasses.replace(one, num_workers=3).find("step", 0.5, "dense") is None
