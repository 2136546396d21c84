"""Page of a sweep: trials in order, fronts, effects and sizes, from its files alone."""

import json
from pathlib import Path

import pytest

from inq_ray.cli import program
from inq_ray.report.files import Files
from inq_ray.report.sweep.page import sweep_page
from inq_ray.report.sweep.record import read_sweep
from inq_ray.storage.address import locate
from inq_ray.sweep.space.axes import Choices
from inq_ray.sweep.space.space import BITS, LR, SCHEDULE, Space
from inq_ray.sweep.trials.ranking import pareto
from tests.report.folders import HOSTILE
from tests.report.pages import Page
from tests.sweep.here import Here, tiny_plan
from tests.training.runs import needs_digits

pytest.importorskip("matplotlib", reason="matplotlib draws the charts and is not installed")
pytestmark = [pytest.mark.system, needs_digits]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep of eight trials."""
    axes = {SCHEDULE: Choices(((0.5, 1.0), (0.5, 0.75, 1.0))), LR: Choices((0.01, 0.02)), BITS: Choices((5, 2))}
    plan = tiny_plan(tmp_path_factory.mktemp("sweeps"), Space(axes))
    Here(plan).run()
    return plan.folder.path


def _changed(folder: Path, path: Path, **values: object) -> Files:
    """The folder of a sweep with other values in its state."""
    path.mkdir()
    state = json.loads((folder / "sweep.json").read_text())
    (path / "sweep.json").write_text(json.dumps({**state, **values}))
    return Files(locate(str(path)))


def test_a_finished_sweep(folder: Path) -> None:
    record = read_sweep(Files(locate(str(folder))))
    page = Page(sweep_page(record))
    assert record.files.problems == []
    assert page.elements.count("svg") == 4
    done = sorted(record.trials, key=lambda trial: (-(trial.top1 or 0.0), trial.bits, trial.number))
    best = done[0]
    assert f"best top-1 {best.top1:.2f} % {best.name}, {best.bits} bits" in page.text
    assert "trials 8 8 done" in page.text
    for trial in record.trials:
        size = (folder / trial.name / f"{trial.name}.inq.safetensors").stat().st_size
        assert record.num_bytes[trial.name] == size
        assert f"{trial.top1:.2f} {size:,}" in page.text
    assert "iterative_steps 0.5,1 4 " in page.text
    assert "reason" not in page.text


def test_an_unfinished_sweep(folder: Path, tmp_path: Path) -> None:
    trials = json.loads((folder / "sweep.json").read_text())["trials"]
    trials[0] |= {"status": "failed", "top1": None, "reason": f"out of memory {HOSTILE}", "ends": trials[0]["ends"][:1]}
    trials[1] |= {"status": "running", "top1": None}
    files = _changed(folder, tmp_path / "sweep", trials=trials)
    (tmp_path / "sweep" / "events.jsonl").write_text(json.dumps({"trial": HOSTILE, "kind": "failed", "text": "x"}))
    page = Page(sweep_page(read_sweep(files)))
    assert "6 done, 1 failed" in page.text
    assert "out of memory <script>" in page.text
    assert "script" not in page.elements
    assert "the size of t003 is not known" in page.text  # the trials' folders are elsewhere


def test_a_trial_with_other_parameters(folder: Path, tmp_path: Path) -> None:
    trials = json.loads((folder / "sweep.json").read_text())["trials"]
    del trials[1]["point"]["training.lr"]
    record = read_sweep(_changed(folder, tmp_path / "sweep", trials=trials))
    assert len(record.trials) == len(trials) - 1
    assert "trial t002 is left out, it does not have the parameters of the sweep" in record.files.problems
    assert sweep_page(record)


def test_a_sweep_without_results(folder: Path, tmp_path: Path) -> None:
    page = Page(sweep_page(read_sweep(_changed(folder, tmp_path / "sweep", trials=[]))))
    assert "trials 0" in page.text
    assert "svg" not in page.elements


@pytest.mark.parametrize(
    ("values", "message"),
    [({"format_version": 7}, "another format"), ({"trials": 3}, "is damaged"), ({"origin": {}}, "is damaged")],
)
def test_a_damaged_state(
    folder: Path, tmp_path: Path, values: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _changed(folder, tmp_path / "sweep", **values)
    assert program.run(["report", str(tmp_path / "sweep")]) == 2
    assert message in capsys.readouterr().err
    (tmp_path / "sweep" / "sweep.json").write_text("[]")
    assert program.run(["report", str(tmp_path / "sweep")]) == 2


def test_the_front_by_another_cost(folder: Path) -> None:
    trials = read_sweep(Files(locate(str(folder)))).trials
    front = pareto(trials, lambda trial: -trial.number)
    for trial in front:
        better = [each for each in trials if each.number >= trial.number and (each.top1 or 0) > (trial.top1 or 0)]
        assert better == []
