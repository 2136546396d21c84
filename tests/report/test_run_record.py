"""What a report reads of a run's folder: all that is there, and a line for each part that is not."""

import json
from pathlib import Path

import pytest

from inq_ray.report.run.layers import frozen_by_stage, layers_of_result
from tests.report.folders import record_of, rows, write_run


def test_a_finished_run(tmp_path: Path) -> None:
    record = record_of(write_run(tmp_path))
    assert record.files.problems == []
    assert (record.name, record.status, record.float_top1, record.top1) == ("mine", "finished", 91.5, 91.5)
    assert record.rows == tuple(rows())
    assert [(stage.portion, stage.quantized, stage.retrained, stage.epochs) for stage in record.stages] == [
        (0.5, 81.0, 89.5, 2), (0.75, 82.0, 90.5, 2), (1.0, 83.0, 91.5, 2),
    ]  # fmt: skip
    assert record.packed is not None
    assert record.packed_bytes == (tmp_path / "mine" / "mine.inq.safetensors").stat().st_size
    assert [each.kind for each in record.incidents] == ["workers_lost"]


def test_many_lines_that_no_run_writes_are_few_problems(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    good = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({**good, "top1": 101 + number}) + "\n" for number in range(1000))
    record = record_of(folder)
    assert record.rows == tuple(rows())
    assert len(record.files.problems) == 3
    assert record.files.problems[0].endswith("which are left out: top-1 101 and top-5 99 are not possible")


def test_a_failed_run(tmp_path: Path) -> None:
    record = record_of(write_run(tmp_path, finished=False))
    assert record.status == "failed"
    assert record.files.problems == ["summary.json is missing: the run is not finished"]
    assert record.stages[-1].retrained is None
    assert record.top1 == 83.0


def test_a_summary_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    for path in folder.iterdir():
        if path.is_file() and path.name != "summary.json":
            path.unlink()
    record = record_of(folder)
    assert record.top1 == 91.5
    assert [stage.top1 for stage in record.stages] == [89.5, 90.5, 91.5]
    assert record.option("network", "arch") == "cifar_resnet20"
    missing = "\n".join(record.files.problems)
    for part in ("config.json is missing", "metrics.jsonl is missing", "no packed file"):
        assert part in missing


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (folder / "summary.json").write_text("[" * 100_000)
    (folder / "config.json").write_bytes(b"\xff\x00")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    wrong = json.dumps({**json.loads(lines[0]), "stage": "<b>"})
    far = json.dumps({**json.loads(lines[0]), "stage": 10**30})
    (folder / "metrics.jsonl").write_text("\n".join([*lines[:3], wrong, far, lines[3][:20]]))
    (folder / "events.jsonl").write_text('{"kind": ["x"], "time": "y"}\n3\n')
    packed = folder / "mine.inq.safetensors"
    packed.write_bytes(packed.read_bytes()[:-1])
    record = record_of(folder)
    assert record.rows == tuple(rows()[:3])
    assert (record.summary, record.config, record.packed, record.packed_bytes) == ({}, {}, None, None)
    problems = "\n".join(record.files.problems)
    for part in (
        "summary.json is damaged",
        "config.json is damaged",
        "stage must be a whole number",
        "are not possible",
        "metrics.jsonl has 1 damaged line(s)",
        "events.jsonl has 1 damaged line(s)",
        "packed file cannot be used",
    ):
        assert part in problems


def test_the_later_of_two_equal_epochs_counts(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    again = json.loads((folder / "metrics.jsonl").read_text().splitlines()[2])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**again, "top1": 12.5, "loss": None}) + "\n")
    record = record_of(folder)
    assert len(record.rows) == len(rows())
    assert record.rows[2].top1 == 12.5


def test_layers_are_counted(tmp_path: Path) -> None:
    record = record_of(write_run(tmp_path))
    assert record.packed is not None
    layers = layers_of_result(record.packed)
    assert [layer.row.name for layer in layers] == ["0.weight", "3.weight", "4.weight"]
    for layer in layers:
        weight = record.packed.state[layer.row.name]
        assert layer.row.num_zero + sum(layer.powers.values()) == layer.num_weights == weight.numel()
        for power, count in layer.powers.items():
            assert count == int((weight.abs() == 2.0**power).sum())
    frozen = frozen_by_stage(layers, [0.5, 0.75, 1.0])
    assert [sum(counts) for counts in frozen] == [layer.num_weights for layer in layers]
    assert frozen[0] == [108, 54, 54]


@pytest.mark.parametrize("present", ["config.json", "metrics.jsonl", "summary.json"])
def test_each_part_is_enough(present: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    for path in folder.iterdir():
        if path.name != present:
            path.unlink()
    assert record_of(folder).files.problems != []
