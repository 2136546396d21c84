"""Page of a run: every number comes from its files, nothing is loaded, and no name becomes markup."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import inq_ray
from inq_ray.cli import program
from inq_ray.cli.report import leave_report
from inq_ray.export.packed.writer import save
from inq_ray.report.run.page import run_page
from inq_ray.report.run.rounding import Stored, read_stored
from inq_ray.report.written import write_report
from inq_ray.training.checkpoint.checkpoints import store_of
from tests.report.folders import HOSTILE, record_of, write_run
from tests.report.pages import Page
from tests.s3 import S3Server
from tests.training.runs import needs_digits, run_here, tiny_config

pytest.importorskip("matplotlib", reason="matplotlib draws the charts and is not installed")
pytestmark = pytest.mark.system


def page_of(folder: Path) -> Page:
    record = record_of(folder)
    return Page(run_page(record, read_stored(record, remote=False)))


def test_a_finished_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    page = page_of(folder)
    size = (folder / "mine.inq.safetensors").stat().st_size
    for part in (
        "cifar_resnet20 on digits",
        "91.50 % float 91.50 %, +0.00 points",
        f"{size / 1000:.1f} kB",
        "verified 1,536 weights equal their codes",
        "1 0.5 81.00 89.50 \u22122.00",
        "3 1 83.00 91.50 +0.00",
        "0.weight 8x3x3x3 216 3",
        summary["digest"],
        summary["verification"]["digest"],
        summary["verification"]["model_sha256"],
        "abcd",
        "rank 1 is lost",
        "2026-11-30 13:04:54",
        "gradient exchange (25 % of the time)",
        "inq_ray 0.2.0, torch 2.15.0",
        "network.weights a.safetensors",
    ):
        assert part in page.text
    assert page.elements.count("svg") == 8  # without errors by layer: there are no checkpoints
    assert "What this page could not use: there are no checkpoints" in page.text


def test_stale_statistics_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    stale = "right after quantizing with BatchNorm's statistics of before, which are stale"
    assert stale in page_of(folder).text
    metrics = folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"num_bn_images": null', '"num_bn_images": 512'))
    text = page_of(folder).text
    assert "right after quantizing" in text
    assert stale not in text


def test_a_failed_run(tmp_path: Path) -> None:
    text = page_of(write_run(tmp_path, finished=False)).text
    assert "run failed out of memory" in text
    assert "summary.json is missing: the run is not finished" in text
    assert "verified" not in text


def test_a_result_that_was_changed(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    other = write_run(tmp_path, "other")
    network = torch.nn.Linear(2, 2)
    save(other / "other.inq.safetensors", network, {})
    (other / "other.inq.safetensors").replace(folder / "mine.inq.safetensors")
    assert "differs the packed file does not have the digest" in page_of(folder).text


def test_nothing_is_loaded_and_the_page_is_valid(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    record = record_of(folder)
    text = run_page(record, Stored())
    page = Page(text)
    assert {"script", "link", "img", "iframe", "object", "embed", "base"}.isdisjoint(page.elements)
    assert [link for link in page.links if not link.startswith("#")] == []
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert page.handlers == []
    assert re.findall(r"(?:url\(|@import)(?!#)", text) == []
    assert "#0404" not in text  # every color is one of the page's
    assert run_page(record_of(folder), Stored()) == text  # the same folder gives the same page


def test_stages_without_accuracy(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"stages": [{"portion": 0.5}, {"portion": 1.0, "top1": "x"}]}))
    assert "Top-1 of each stage." in page_of(tmp_path).text


def _measured(names: list[str]) -> dict[str, Any]:
    """What `inq-ray sensitivity` writes, as far as the page shows it."""
    scores = [{"2": {"divergence": 0.5 / (1 + index)}, "4": {"divergence": 0.0}} for index in range(len(names))]
    return {
        "layers": [{"name": name, "by_bits": by_bits} for name, by_bits in zip(names, scores, strict=True)][::-1],
        "ranking": names,
        "images": {"count": 256, "what": "256 images of the test set"},
        "proposal": {"weight_bits": 4, "layer_bits": ["b.weight=2", "c.*=3", "d'; ls #=2"]},
    }


def test_the_sensitivity_that_lies_in_the_folder(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (folder / "sensitivity.json").write_text(json.dumps(_measured(["a.weight", HOSTILE, "b.weight"])))
    page = page_of(folder)
    assert page.elements.count("svg") == 9
    assert "a.weight 0.5 0 " in page.text
    assert "b.weight 0.1667 0 " in page.text
    assert page.text.index("a.weight 0.5") < page.text.index("b.weight 0.1667")
    assert "Measured on 256 images of the test set." in page.text
    assert """Proposed: --weight-bits 4 --layer-bits b.weight=2 'c.*=3' 'd'"'"'; ls #=2'""" in page.text
    assert "mathdefault" not in page.text, "a logarithmic axis has plain numbers"
    assert {"script", "img"}.isdisjoint(page.elements)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"layers": 3, "ranking": ["a"]}',
        '{"layers": [{"name": "a", "by_bits": {"9": 1}}], "ranking": 1}',
        json.dumps({**_measured(["a"]), "layers": [{"name": "a", "by_bits": {"2": {"divergence": "x"}}}]}),
    ],
)
def test_a_damaged_sensitivity_is_noted(text: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (folder / "sensitivity.json").write_text(text)
    page = page_of(folder)
    assert "sensitivity.json is " in page.text
    assert "Divergence, nats." not in page.text


def test_hostile_names(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path, facts={"class_names": [HOSTILE], "accuracy": {"data_fingerprint": HOSTILE}, HOSTILE: 1}
    )
    for name in ("config.json", "summary.json"):
        values = json.loads((folder / name).read_text())
        config = values.get("config", values)
        config["network"]["arch"], config["data"]["data"] = HOSTILE, f"/data/{HOSTILE}"
        config[HOSTILE] = {HOSTILE: [HOSTILE, {"a": HOSTILE}]}
        values |= {"digest": HOSTILE, "device": [HOSTILE], "versions": {HOSTILE: HOSTILE}, "images": [HOSTILE, 3]}
        values |= {"measured_on": HOSTILE, "spent": HOSTILE, "seconds": "x"} if name == "summary.json" else {}
        (folder / name).write_text(json.dumps(values))
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"kind": HOSTILE, "text": HOSTILE, "time": 1e20, "seconds_lost": -1}) + "\n")

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_module(HOSTILE.replace(".", ""), torch.nn.Linear(4, 4))

    network = Network()
    scheduler = inq_ray.INQScheduler(inq_ray.SGD(inq_ray.param_groups(network, weight_bits=3), lr=0.1), [1.0])
    scheduler.step()
    save(folder / "mine.inq.safetensors", network, scheduler)
    page = page_of(folder)
    assert {"script", "img"}.isdisjoint(page.elements)
    assert page.elements.count("style") == 1
    assert page.handlers == []
    assert "<script>alert(1)</script>" in page.text  # as text
    assert not {"\u202e", "\x1b"} & set(page.text)


@needs_digits
def test_errors_by_layer_are_those_of_the_checkpoints(tmp_path: Path) -> None:
    finished = run_here(tiny_config(tmp_path))
    record = record_of(finished.folder.path)
    stored = read_stored(record, remote=False)
    assert record.files.problems == []
    assert stored.stages == [1, 2]
    assert record.packed is not None
    store = store_of(tiny_config(tmp_path))
    places = {(place.stage, place.epoch): place for place in store.positions()}
    first, second = (store.load(places[stage, 1])[1] for stage in (0, 1))
    for name, error in stored.errors.items():
        final = record.packed.state[name].double()
        frozen = second.tensors[f"frozen/{name}"]
        before = torch.where(frozen, first.tensors[f"model/{name}"], second.tensors[f"model/{name}"]).double()
        assert error.num_weights == final.numel()
        assert error.relative == pytest.approx(float((final - before).norm() / before.norm()))
    page = Page(run_page(record, stored))
    assert page.elements.count("svg") == 9


@needs_digits
def test_an_unfinished_run_shows_its_newest_checkpoint(tmp_path: Path) -> None:
    folder = run_here(tiny_config(tmp_path)).folder.path
    for path in (folder / "summary.json", folder / "tiny.inq.safetensors", folder / "model.safetensors"):
        path.unlink()
    shutil.rmtree(next(folder.glob("checkpoints/checkpoint-02-0001-*")))
    shutil.rmtree(next(folder.glob("checkpoints/checkpoint-02-0000-*")))
    record = record_of(folder)
    stored = read_stored(record, remote=False)
    assert [layer.row.num_values for layer in stored.layers] == [1280, 72, 2304, 9216]  # by name
    text = Page(run_page(record, stored)).text
    assert "run unfinished" in text
    assert "frozen so far 50.0 % 12,872 of 25,744 weights" in text
    broken = next(folder.glob("checkpoints/checkpoint-01-0000-*")) / "tensors.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    record = record_of(folder)
    read_stored(record, remote=False)
    assert "checkpoints cannot be used" in "\n".join(record.files.problems)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path)
    assert program.run(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}/report.html\n"
    page = (folder / "report.html").read_text()
    assert program.run(["report", str(folder), str(tmp_path)]) == 0
    assert (tmp_path / "report.html").read_text() == page  # the first report is not among the files
    assert program.run(["report", "--help"]) == 0
    assert "usage: inq-ray report RUN_OR_SWEEP [OUT]" in capsys.readouterr().out
    for words, message in {
        (): "name the folder",
        (str(folder), "a", "b"): "name the folder",
        ("--out", str(folder)): "name the folder",
        (str(tmp_path),): "neither the folder of a run nor of a sweep",
        (str(tmp_path / "none"),): "there is nothing at ",
        (str(folder), str(tmp_path / "none" / "page.html")): "cannot write",
        ("ftp://a/b",): "is not a supported address",
    }.items():
        assert program.run(["report", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_addresses(tmp_path: Path, s3: S3Server) -> None:
    folder = write_run(tmp_path)
    fs = s3.file_system()
    fs.create_dir("runs")
    for path in folder.iterdir():
        with fs.open_output_stream(f"runs/mine/{path.name}") as stream:
            stream.write(path.read_bytes())
    assert write_report("s3://runs/mine") == "s3://runs/mine/report.html"
    here = Path(write_report(folder))
    with fs.open_input_file("runs/mine/report.html") as file:
        assert file.read().decode() == here.read_text()
    with pytest.raises(ValueError, match="there is no bucket 'none'"):
        write_report("s3://none/mine")


def test_a_run_leaves_its_report_or_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, lines = write_run(tmp_path), list[str]()
    leave_report(folder, lines.append)
    assert lines == [f"report    {folder}/report.html"]
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()
    (folder / "report.html" / "report.html").mkdir()
    leave_report(folder, lines.append)
    assert lines[1].startswith("warning: the report cannot be written: ")
    monkeypatch.setattr("inq_ray.cli.report.can_draw", lambda: False)
    leave_report(folder, lines.append)
    assert len(lines) == 2
    monkeypatch.setattr("inq_ray.report.written.can_draw", lambda: False)
    with pytest.raises(ValueError, match="a report needs matplotlib: pip install"):
        write_report(folder)
