import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.results.__main__ import main
from benchmarks.results.groups import groups_of
from benchmarks.results.page import page
from benchmarks.results.published import comparison
from benchmarks.results.record import read_records
from benchmarks.results.tables import readme_body
from tests.conftest import REPO
from tests.documents import Document


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the README and the results of this one."""
    shutil.copytree(REPO / "docs/results", tmp_path / "docs/results")
    shutil.copy(REPO / "README.md", tmp_path)
    return tmp_path


def _change(root: Path, name: str, section: str | None = None, **values: Any) -> None:
    """Change figures of a record, or of a section of its configuration."""
    path = root / "docs/results" / name
    record = json.loads(path.read_text())
    (record["config"][section] if section else record).update(values)
    path.write_text(json.dumps(record))


def _leave_out_compensated(root: Path) -> None:
    """Leave out a second group of a width, so that groups have short names."""
    for path in (root / "docs/results/runs").glob("*-compensated-*"):
        path.unlink()


def _page(root: Path) -> str:
    return page(root / "docs/results")


def test_documents_and_picture_are_made_of_the_records(checkout: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture is drawn by matplotlib, which is not installed")
    readme, page, picture = (
        checkout / name for name in ("README.md", "docs/results/README.md", "docs/images/results.png")
    )
    before = readme.read_text(), page.read_text()
    page.unlink()
    picture.parent.mkdir()
    readme.write_text("Before <!-- results:begin -->\n\n<!-- results:end --> after")
    assert main(["write"], checkout) == 0
    assert main(["check"], checkout) == 0
    assert readme.read_text().removeprefix("Before ").removesuffix(" after") in before[0]
    assert page.read_text() == before[1]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_groups_of_one_width_are_told_apart(checkout: Path) -> None:
    _leave_out_compensated(checkout)
    _change(checkout, "runs/cifar_resnet20-3bit-s1.json", "training", lr=0.5)
    text = _page(checkout)
    assert "\n| cifar_resnet20 (lr 0.5) | cifar10 | 3 | 91.73 | 91.21 | 1 | -0.52 |" in text
    assert "\n| cifar_resnet20 (lr 0.02) | cifar10 | 3 | 91.73 | 91.45 ± 0.16 | 2 | -0.28 |" in text
    assert "\n# cifar_resnet20, cifar10, 3 bits, lr 0.5\n" in text


def test_stale_figures_of_old_records_are_told_apart(checkout: Path) -> None:
    _leave_out_compensated(checkout)
    assert "\n| quantized |" not in _page(checkout)
    for path in (checkout / "docs/results/runs").glob("*-5bit-s*.json"):
        stages = json.loads(path.read_text())["stages"]
        _change(checkout, f"runs/{path.name}", stages=[{**stage, "num_bn_images": 512} for stage in stages])
    text = _page(checkout)
    assert text.count("\n| quantized |") == 1
    assert text.count("\n| quantized (stale) |") == 3


def test_the_readme_has_rows_for_each_network(checkout: Path) -> None:
    _change(checkout, "runs/cifar_resnet20-3bit-s2.json", network="other", float_top1=95.0, top1=94.5, seconds=30)
    _change(checkout, "runs/cifar_resnet20-3bit-s2.json", "network", arch="other")
    lines = readme_body(checkout / "docs/results").splitlines()
    top1 = "91.73 | 91.72 ± 0.08 | 91.69 ± 0.08 | 91.38 ± 0.25 | 90.65 ± 0.22"
    assert lines[2] == f"| cifar_resnet20, cifar10 | top-1, % | {top1} |"
    assert lines[3] == "| | file, kB | 1,085 | 129 | 108 | 83 | 63 |"
    assert lines[4] == "| | minutes | | 32 | 41 | 51 | 49 |"
    assert lines[5:8] == [
        "| other, cifar10 | top-1, % | 95.00 | | | 94.50 | |",
        "| | file, kB | | | | | |",
        "| | minutes | | | | 0.5 | |",
    ]
    assert "over 1 to 3 seeds" in " ".join(lines)


def test_commands_name_data_that_a_reader_can_get(checkout: Path) -> None:
    text = _page(checkout)
    assert "../shared" not in text
    assert text.index("hf download uoft-cs/cifar10") < text.index("python jobs/quantize_imagenet.py --data cifar10 ")


def test_a_command_for_gpus_is_not_run_by_the_tests_of_documents(checkout: Path) -> None:
    _leave_out_compensated(checkout)
    _change(checkout, "runs/cifar_resnet20-3bit-s0.json", command="python jobs/quantize_imagenet.py --use-gpu")
    blocks = list(Document(path=checkout, text=_page(checkout)).blocks())
    assert [block.not_run for block in blocks] == ["downloads data and weights", None, "needs a GPU"]
    assert blocks[2].text.startswith("# cifar_resnet20, cifar10, 3 bits\n")


def test_every_published_result_has_a_link_and_says_what_is_unlike_ours() -> None:
    rows = [line.split(" | ") for line in comparison(groups_of(read_records(REPO / "docs/results/runs"))).splitlines()]
    bodies = [row for row in rows if row[0].removeprefix("| ").isdigit()]
    assert [row[2] for row in bodies].count("inq_ray") == 4
    for row in bodies:
        assert row[2] == "inq_ray" or ("](https://github.com/" in row[2] and len(row[5]) > 10)
    assert {row[1] for row in bodies if row[0] == "| 3"} >= {"5: 0, ±1, ±2", "7: 0, ±1, ±2, ±4", "5: 0 and ±2^k"}


def test_questions_are_answered_side_by_side(checkout: Path) -> None:
    text = _page(checkout)
    expected = "| | 4 | A | 1+1+1+1+1+1, 50 batches each | codebook mse | codebook max | "
    expected += "[90.12](choices/b4-mse-s0.json) | [89.88](choices/b4-max-s0.json) | +0.24 | 1 | 0.3092, 0.3178 |"
    assert expected in text
    assert "| A scaled | A | [90.52]" in text
    assert "| epochs 6+2+1+0 | epochs 6+1+1+1 | [90.46]" in text


def test_every_trial_has_its_place_in_a_question(checkout: Path) -> None:
    text = _page(checkout)
    missing = [path.name for path in (checkout / "docs/results/choices").glob("*.json") if path.name not in text]
    assert missing == []


def test_a_float_network_that_is_not_described_is_refused(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _change(checkout, "choices/b2-lr05-s0.json", "network", weights="other.safetensors")
    assert main(["write"], checkout) == 2
    assert "b2-lr05-s0: networks.json does not describe other.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["README.md", "docs/results/README.md"])
def test_a_figure_that_was_changed_by_hand_is_found(
    checkout: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (checkout / name).read_text()
    assert "91.72 ± 0.08" in text
    (checkout / name).write_text(text.replace("91.72 ± 0.08", "91.92 ± 0.08"))
    assert main(["check"], checkout) == 1
    assert "91.92 ± 0.08" in capsys.readouterr().out


def test_kept_weights_of_another_run_are_found(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = checkout / "docs/results/weights"
    (weights / "cifar_resnet20-2bit-s0.inq.safetensors").rename(weights / "cifar_resnet20-3bit-s0.inq.safetensors")
    assert main(["check"], checkout) == 1
    assert "the weights of cifar_resnet20-3bit-s0 have another digest than its record" in capsys.readouterr().out


def test_a_pair_of_other_seeds_is_refused(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _change(checkout, "choices/b2-lr05-s0.json", seed=7)
    assert main(["write"], checkout) == 2
    assert "b2-lr05-s0: there is no held-out run b2-base-s0 with the same seed" in capsys.readouterr().err


def test_a_readme_without_marks_is_refused(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "README.md").write_text("# Title\n")
    assert main(["check"], checkout) == 2
    assert "must have <!-- results:begin -->" in capsys.readouterr().err


def test_git_does_not_ignore_what_is_kept() -> None:
    """The pattern that ignores the folder of runs once ignored their records too."""
    kept = [f"docs/results/{name}" for name in ("runs/a.json", "choices/a.json", "weights/a.inq.safetensors")]
    ignored = subprocess.run(["git", "check-ignore", *kept], cwd=REPO, check=False, capture_output=True, text=True)
    assert ignored.stdout == ""
