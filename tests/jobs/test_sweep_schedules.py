"""The job that sweeps: what it prints and refuses before anything starts."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inq_ray.cli import sweep as sweep_schedules
from tests.training.runs import needs_digits

pytestmark = [needs_digits, pytest.mark.system]

Job = Callable[..., tuple[int, str, str]]


@pytest.fixture
def job(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Runs the job; gives exit status, stdout and stderr."""
    monkeypatch.setattr("inq_ray.cluster.connection.get_num_cpus", lambda **_: 4)

    def run(flags: str) -> tuple[int, str, str]:
        status = sweep_schedules.main([*flags.split(), "--storage-path", str(tmp_path / "runs")], "sweep_schedules")
        return status, *capsys.readouterr()

    return run


def test_a_dry_run_lists_trials_and_what_they_share(job: Job, tmp_path: Path) -> None:
    status, out, err = job("--dry-run --schedules 0.5,0.75,0.875,1 0.5,0.75,0.9,1 --bits 5 3")
    assert (status, err) == (0, "")
    assert "20 stages, 13 of them distinct: 65 % need training" in out
    assert "accuracy is measured on 129 held-out images of 1,297" in out
    lines = [line for line in out.splitlines() if line.startswith("│ t")]
    assert [line.split("│")[-2].strip() for line in lines] == ["0", "1", "3", "3"]
    assert not any(tmp_path.iterdir())


def test_what_is_done_to_images_is_printed_where_all_trials_see_the_same(job: Job, tmp_path: Path) -> None:
    _, out, _ = job("--dry-run --bits 5 3")
    assert "images: 1x8x8" in out
    assert "not mirrored" in out
    space = tmp_path / "space.yaml"
    space.write_text("fields: {data.random_erasing: [0.0, 0.5]}")
    status, out, _ = job(f"--dry-run --space {space}")
    assert status == 0
    assert "images: 1x8x8" not in out


def test_what_optuna_proposes_is_not_known_before(job: Job) -> None:
    status, out, _ = job("--dry-run --rising free --lrs 1e-3..1e-1 --search optuna --trials 7")
    assert status == 0
    assert "Optuna proposes 7 trials, each based on earlier results" in out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--schedules 0.5,0.4,1", "--schedules: portions are accumulated"),
        ("--lrs 0.1..0.2", "--search grid needs lists"),
        ("--workers-per-trial 99 --batch-size 500", "need 99 CPUs, this machine has 4"),
        ("--gpus-per-trial 2", "this machine has no GPU"),
        ("--track nothing", "nothing"),
        ("--space nowhere.yaml", "--space nowhere.yaml: "),
    ],
)
def test_what_cannot_start_is_one_line(flags: str, says: str, job: Job, tmp_path: Path) -> None:
    status, out, err = job(flags)
    assert (status, out, len(err.splitlines())) == (2, "", 1), err
    assert err.startswith("sweep_schedules: ")
    assert says in err
    assert not any(tmp_path.iterdir())


def test_sigterm_where_only_ray_listens_has_a_line_and_its_status(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_schedules, "execute", lambda *_: sys.exit(signal.SIGTERM))
    assert job("") == (143, "", "sweep_schedules: ended by SIGTERM; run the same command to continue\n")
    monkeypatch.setattr(sweep_schedules, "execute", lambda *_: sys.exit(0))
    with pytest.raises(SystemExit):
        job("")
