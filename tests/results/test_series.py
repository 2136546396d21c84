"""Runs behind the table: their commands are those of the recipes, and what has a record is not run again."""

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.results.__main__ import main
from benchmarks.results.places import Places
from benchmarks.results.series import Row, commit_of, rows_of, run_rows
from inq_ray.training.config.recipes import recipe
from inq_ray.training.flags.parse import parse
from tests.results.checkouts import empty_checkout

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def committed(folder: Path) -> str:
    """All files of a folder, committed there; the commit."""
    person = ["-c", "user.email=a@b.c", "-c", "user.name=a"]
    for words in (["init", "-q"], ["add", "-A"], [*person, "commit", "-qm", "files"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return commit_of(folder)


def test_commands_are_those_of_the_recipes() -> None:
    rows = rows_of([5, 2], [0, 1], [5], ["--num-workers", "1"])
    assert [row.name for row in rows[:3]] == [
        "cifar_resnet20-5bit-s0", "cifar_resnet20-2bit-s0", "cifar_resnet20-5bit-random-s0",
    ]  # fmt: skip
    assert len({row.name for row in rows}) == len(rows) == 6
    for row in rows:
        config = parse(row.arguments).run
        due = recipe(f"cifar_resnet20-{row.bits}bit")
        assert config.training == due.replace(training={"seed": row.seed}).training
        assert config.quantization == due.replace(quantization={"strategy": row.strategy}).quantization
        assert config.cluster.num_workers == 1
        assert config.output.name == row.name


@needs_git
def test_a_row_that_fails_is_told_and_leaves_its_log(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    (tmp_path / "jobs").mkdir()
    job = tmp_path / "jobs/quantize_imagenet.py"
    job.write_text("import sys\nprint(sys.argv)\nsys.exit(2 * ('5bit-s1' in str(sys.argv)))\n")
    committed(tmp_path)
    rows = [Row(5, 0), Row(5, 1)]
    run_rows(rows, tmp_path, tmp_path / "runs", 2, lambda row, status: told.append((row.name, status)))
    assert sorted(told) == [("cifar_resnet20-5bit-s0", 0), ("cifar_resnet20-5bit-s1", 2)]
    assert "--recipe" in (tmp_path / "runs/cifar_resnet20-5bit-s1.log").read_text()


@needs_git
def test_a_row_runs_on_one_commit(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    job = tmp_path / "jobs/quantize_imagenet.py"
    job.write_text("")
    first = committed(tmp_path)
    ended: list[int] = []

    def again() -> None:
        run_rows([Row(5, 0)], tmp_path, tmp_path / "runs", 1, lambda _, status: ended.append(status))

    again()
    again()
    assert ended == [0, 0]
    job.write_text("pass")
    with pytest.raises(ValueError, match="files differ"):
        again()
    committed(tmp_path)
    with pytest.raises(ValueError, match=f"s0 was begun on commit {first}"):
        again()
    assert ended == [0, 0]


def test_what_has_a_record_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: Places = empty_checkout(tmp_path)
    ran: list[Row] = []
    monkeypatch.setattr("benchmarks.results.__main__.commit_of", lambda _: "0" * 40)
    monkeypatch.setattr("benchmarks.results.__main__.run_rows", lambda rows, *_: ran.extend(rows))
    monkeypatch.setattr("benchmarks.results.__main__.write", lambda _: 0)
    places.runs.mkdir(parents=True)
    (places.runs / "cifar_resnet20-4bit-s0.json").write_text("{}")
    assert main(["run", "--bits", "5", "4", "--seeds", "0"], places) == 0
    assert [row.name for row in ran] == ["cifar_resnet20-5bit-s0"]


@needs_git
def test_a_changed_checkout_has_no_commit_to_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one")
    assert committed(tmp_path) == commit_of(tmp_path)
    (tmp_path / "file").write_text("two")
    with pytest.raises(ValueError, match=r"commit first \(M file\)"):
        commit_of(tmp_path)


@needs_git
def test_what_rows_themselves_have_written_does_not_keep_the_next_ones_back(tmp_path: Path) -> None:
    written = ["README.md", "docs/results/README.md", "docs/images/results.png"]
    for name in written:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    commit = committed(tmp_path)
    for name in written:
        (tmp_path / name).write_text("after")
    assert commit_of(tmp_path) == commit
