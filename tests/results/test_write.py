import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from benchmarks.results.__main__ import main
from benchmarks.results.places import Places
from benchmarks.results.published import PUBLISHED
from benchmarks.results.record import as_text, read_records
from tests.documents import Document, commands
from tests.results.checkouts import COMMAND, collect, empty_checkout
from tests.training.runs import Finished, needs_digits

pytestmark = [pytest.mark.system, needs_digits]

pytest.importorskip("matplotlib", reason="the picture is drawn by matplotlib, which is not installed")


@pytest.fixture
def written(small_runs: dict[str, Finished], tmp_path: Path) -> Places:
    """A checkout whose documents were made of all small runs."""
    places = empty_checkout(tmp_path / "checkout")
    options = {
        "random-0": " --strategy random",
        "two-0": " --weight-bits 2 --recipe digits_cnn-5bit --codebook mse",
        "held-0": " --holdout 200",
        "held-lr-0": " --holdout 200 --lr 0.001",
    }
    for name, finished in small_runs.items():
        more = ["--against", "held-{seed}", "--note", "did not help"] if name == "held-lr-0" else []
        assert collect(places, finished.folder.path, *more, command=COMMAND + options.get(name, "")) == 0
    for name in ("five-0", "two-0"):
        assert main(["keep", str(small_runs[name].folder.path)], places) == 0
    assert main(["write"], places) == 0
    return places


def _row(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_mean_and_spread_over_seeds(written: Places, small_runs: dict[str, Finished]) -> None:
    summaries = [small_runs[name].summary for name in ("five-0", "five-1")]
    top1 = [summary["top1"] for summary in summaries]
    change = statistics.fmean(summary["top1"] - summary["float_top1"] for summary in summaries)
    text = written.readme.read_text()
    row = _row(text, "| digits_cnn | digits | 5 |")
    assert row[4:8] == [f"{statistics.fmean(top1):.2f} ± {statistics.stdev(top1):.2f}", "2", f"{change:+.2f}", "3"]
    assert _row(text, "| digits_cnn | digits | 2 |")[4:6] == [f"{small_runs['two-0'].summary['top1']:.2f}", "1"]
    assert text.startswith("# Title\n\n<!-- results:begin -->\n")
    assert text.endswith("<!-- results:end -->\n\nThe rest.\n")


def test_the_command_of_each_row_stands_below(written: Places) -> None:
    document = Document.read(written.readme)
    words = [words for block in document.blocks() for words in commands(block)]
    expected = [COMMAND.format(seed=0, name="five-0"), f"{COMMAND.format(seed=0, name='two-0')} --weight-bits 2"]
    assert [" ".join(each).partition(" --recipe")[0] for each in words] == expected


def test_the_page_compares_partitions_and_choices(written: Places, small_runs: dict[str, Finished]) -> None:
    text = written.page.read_text()
    random = _row(text, "| digits_cnn | random |")
    summaries = {name: finished.summary["top1"] for name, finished in small_runs.items()}
    assert random[-1] == f"{summaries['random-0'] - (summaries['five-0'] + summaries['five-1']) / 2:+.2f}"
    choice = _row(text, "| lr 0.001 |")
    assert choice[2] == f"{summaries['held-lr-0']:.2f}"
    assert choice[4:] == [f"{summaries['held-lr-0'] - summaries['held-0']:+.2f}", "held-0", "did not help"]
    assert [path.name for path in sorted(written.weights.iterdir())] == ["five-0.safetensors", "two-0.safetensors"]
    assert "weights/two-0.safetensors" in text


def test_links_of_the_page_lead_somewhere(written: Places) -> None:
    for path in (written.page, written.readme):
        document = Document.read(path)
        assert document.stray_fences() == []
        assert all((path.parent / link).exists() for link in document.links() if not link.startswith("http"))


def test_the_picture_is_small(written: Places) -> None:
    assert written.picture.read_bytes().startswith(b"\x89PNG")
    assert written.picture.stat().st_size < 80_000


def test_what_was_written_passes_the_check_and_is_the_same_again(written: Places) -> None:
    before = {path: path.read_bytes() for path in (written.readme, written.page, written.picture)}
    assert main(["check"], written) == 0
    assert main(["write"], written) == 0
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("name", ["readme", "page"])
def test_a_figure_that_was_changed_by_hand_is_found(
    written: Places, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path: Path = getattr(written, name)
    path.write_text(path.read_text().replace("| digits_cnn | digits | 5 |", "| digits_cnn | digits | 3 |"))
    capsys.readouterr()
    assert main(["check"], written) == 1
    shown = capsys.readouterr()
    assert "-| digits_cnn | digits | 3 |" in shown.out
    assert "+| digits_cnn | digits | 5 |" in shown.out
    assert len(shown.out.splitlines()) <= 30


def test_a_record_that_was_taken_away_is_found_in_one_screen(
    written: Places, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "20")
    (written.weights / "two-0.safetensors").unlink()
    (written.runs / "two-0.json").unlink()
    capsys.readouterr()
    assert main(["check"], written) == 1
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) <= 20
    assert all(len(line) <= 100 for line in shown.out.splitlines())
    assert "more lines" in shown.err


def test_kept_weights_of_another_run_are_found(written: Places, capsys: pytest.CaptureFixture[str]) -> None:
    (written.weights / "five-0.safetensors").write_bytes((written.weights / "two-0.safetensors").read_bytes())
    assert main(["check"], written) == 1
    assert "five-0.safetensors has another digest than its record" in capsys.readouterr().out


def test_a_missing_picture_is_found(written: Places, capsys: pytest.CaptureFixture[str]) -> None:
    written.picture.unlink()
    assert main(["check"], written) == 1
    assert "results.png is missing" in capsys.readouterr().out


def _change(places: Places, name: str, **fields: Any) -> None:
    path = places.runs / f"{name}.json"
    path.write_text(as_text({**json.loads(path.read_text()), **fields}))


def test_groups_of_one_width_are_told_apart(written: Places) -> None:
    (record,) = [record for record in read_records(written.runs) if record["name"] == "five-1"]
    record["config"]["training"]["lr"] = 0.5
    _change(written, "five-1", config=record["config"])
    assert main(["write"], written) == 0
    text = written.readme.read_text()
    assert _row(text, "| digits_cnn (lr 0.5) | digits | 5 |")[5] == "1"
    assert _row(text, "| digits_cnn (lr 0.02) | digits | 5 |")[5] == "1"
    assert "# digits_cnn, digits, 5 bits, lr 0.5\n" in text


def test_a_command_for_gpus_is_not_run_by_the_tests_of_documents(written: Places) -> None:
    _change(written, "two-0", command="python jobs/quantize_imagenet.py --use-gpu")
    assert main(["write"], written) == 0
    reasons = {block.text.splitlines()[0]: block.not_run for block in Document.read(written.readme).blocks()}
    assert reasons == {"# digits_cnn, digits, 5 bits": None, "# digits_cnn, digits, 2 bits": "needs a GPU"}


def test_published_figures_stand_beside_ours_of_the_same_network(written: Places) -> None:
    assert "is published" not in written.readme.read_text()
    _change(written, "two-0", network="cifar_resnet20", data="cifar10", float_top1=91.73, top1=90.5)
    assert main(["write"], written) == 0
    row = _row(written.readme.read_text(), "| 2 | -1.23 (91.73 → 90.50) |")
    assert row[2:] == ["", "-2.00 (92.96 → 90.96)", "-0.96 (92.08 → 91.12)"]


def test_a_pair_of_other_seeds_is_refused(written: Places, capsys: pytest.CaptureFixture[str]) -> None:
    path = written.choices / "held-lr-0.json"
    path.write_text(as_text({**json.loads(path.read_text()), "seed": 7}))
    assert main(["write"], written) == 2
    assert "held-lr-0: held-0 is no choice with the same seed to make a pair with" in capsys.readouterr().err


def test_without_any_run_there_is_a_sentence(tmp_path: Path) -> None:
    places = empty_checkout(tmp_path / "checkout")
    assert main(["write"], places) == 0
    assert "No run is collected yet." in places.readme.read_text()
    assert main(["check"], places) == 0
    assert not places.picture.exists()


def test_a_readme_without_marks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = empty_checkout(tmp_path / "checkout")
    places.readme.write_text("# Title\n")
    assert main(["check"], places) == 2
    assert "the README must have" in capsys.readouterr().err


def test_published_figures_are_changes_from_their_own_float() -> None:
    assert [method.change(5) for method in PUBLISHED] == ["-1.94 (91.79 → 89.85)", "", ""]
    assert [PUBLISHED[1].change(bits)[:5] for bits in (4, 3, 2)] == ["-0.51", "-0.47", "-2.00"]
    assert [PUBLISHED[2].change(bits)[:5] for bits in (4, 3, 2)] == ["+0.11", "+0.10", "-0.96"]
