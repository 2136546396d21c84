"""A run that is stopped anywhere and started again ends with the bits, and the metrics, of one that was not."""

import time
from pathlib import Path
from typing import Any

import pytest

from inq_ray.training.config import RunConfig
from inq_ray.training.loop.trainer import EpochState
from inq_ray.training.report.progress import Epoch
from inq_ray.training.run_folder import RunFolder
from tests.ranks import run_ranks
from tests.training.runs import (
    StoppedError,
    after_each_step,
    configured,
    needs_digits,
    read_rows,
    read_summary,
    run_here,
    run_in_parts,
    stopped_after,
)

pytestmark = [needs_digits, pytest.mark.system]


@pytest.mark.long
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_same_bits(size: int, tmp_path: Path) -> None:
    stops = [(0, 1, 3), (0, 2, 6), (1, 1, 1), (1, 2, 4), (2, 1, 6), (2, 2, 5)]
    options: dict[str, Any] = {"training": {"ema_decay": 0.9, "momentum": 0.8}} if size == 3 else {}
    calm, stopped = (configured(tmp_path, name, **options) for name in ("calm", "stopped"))
    expected = run_ranks(run_in_parts, size, calm, [])
    found = run_ranks(run_in_parts, size, stopped, stops)
    assert {digest for digest, _ in found} == {expected[0][0]}
    assert found[0][1] == ["continuing from checkpoint-02-0001-00000004"]
    assert read_rows(RunFolder.planned(stopped)) == read_rows(RunFolder.planned(calm))
    ours, theirs = (read_summary(RunFolder.planned(config)) for config in (stopped, calm))
    for name in ("float_top1", "stages", "top1", "digest", "verification"):
        assert ours[name] == theirs[name], name


def test_one_rank_has_nobody_to_compare_digests_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[object] = []
    monkeypatch.setattr("inq_ray.distributed.digest.fast_digests", compared.append)
    digest, _ = run_in_parts(configured(tmp_path, "one"), [])
    assert compared == []
    assert len(digest) == 64


def test_stages_with_epochs_and_rates_of_their_own_end_in_the_same_bits(tmp_path: Path) -> None:
    each = {"epochs_each": (1, 2), "lr_each": (0.02, 0.005), "lr_schedule": "constant"}
    calm, stopped = (configured(tmp_path, name, training=each) for name in ("calm", "stopped"))
    digest, _ = run_in_parts(calm, [])
    assert run_in_parts(stopped, [(1, 1, 3), (2, 1, 1), (2, 2, 4)])[0] == digest
    rows = read_rows(RunFolder.planned(stopped))
    assert rows == read_rows(RunFolder.planned(calm))
    trained = [(row["stage"], float(row["lr"])) for row in rows if row["lr"]]
    assert trained == [("0", 0.1), ("0", 0.1), ("1", 0.02), ("2", 0.005), ("2", 0.005)]
    same = configured(tmp_path, "same", training={**each, "lr": 0.02, "lr_each": ()})
    assert run_in_parts(same, [])[0] != digest


def test_a_run_that_was_interrupted_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    calm, stopped = (
        configured(tmp_path, name).replace(output={"checkpoint_every": "9h"}) for name in ("calm", "early")
    )
    expected, notes = run_in_parts(calm, [])
    assert notes == []
    digest, notes = run_in_parts(stopped, [(0, 2, 3), (0, 2, 6)])
    assert digest == expected
    assert notes == ["beginning again: there is no checkpoint"]
    folder, events = RunFolder.planned(stopped), read_summary(RunFolder.planned(stopped))["events"]
    assert read_rows(folder) == read_rows(RunFolder.planned(calm))
    assert len(folder.metrics_jsonl.read_text().splitlines()) == len(read_rows(folder))
    assert events["counts"] == {"restarted": 2}
    assert 0 < events["seconds_lost"] < 600


def test_a_clock_that_is_set_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an hour in the middle of a run, and by a day while it is interrupted: what waits asks another clock."""
    calm, stopped = (
        configured(tmp_path, name).replace(output={"checkpoint_every": "1s"}) for name in ("calm", "stopped")
    )
    expected, _ = run_in_parts(calm, [])
    real, back = time.time, 0.0

    def set_back(epoch: Epoch, state: EpochState) -> None:
        nonlocal back
        back = 3600.0
        if (epoch.stage, epoch.epoch, state.step) == (1, 2, 3):
            raise StoppedError

    monkeypatch.setattr(time, "time", lambda: real() - back)
    with pytest.raises(StoppedError), after_each_step(set_back):
        run_here(stopped)
    back = 24 * 3600.0
    digest, notes = run_in_parts(stopped, [])
    assert digest == expected
    assert len(notes) == 1
    assert read_rows(RunFolder.planned(stopped)) == read_rows(RunFolder.planned(calm))
    events = read_summary(RunFolder.planned(stopped))["events"]
    assert events == {"counts": {"resumed": 1}, "seconds_lost": 0.0}


def test_a_run_whose_last_checkpoint_is_its_end_only_writes_its_result(tmp_path: Path) -> None:
    config = configured(tmp_path, "ended")
    digest, _ = run_in_parts(config, [])
    folder = RunFolder.planned(config)
    folder.summary.unlink()
    (folder.result / "model.safetensors").unlink()
    again, notes = run_in_parts(config, [])
    assert again == digest
    assert notes == ["continuing from checkpoint-02-0002-00000000"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path: Path) -> None:
    config = configured(tmp_path, "damaged")
    calm, _ = run_in_parts(config, [])
    folder = RunFolder.planned(config)
    folder.summary.unlink()
    newest = max((folder.path / "checkpoints").iterdir())
    for file in newest.glob("*.safetensors"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    digest, notes = run_in_parts(config, [])
    assert digest == calm
    assert newest.name in notes[0]
    assert "damaged" in notes[0]
    assert notes[1].startswith("continuing from checkpoint-")
    assert newest.name not in notes[1]


def test_another_number_of_ranks_goes_on_too(tmp_path: Path) -> None:
    config = configured(tmp_path, "fewer")
    with pytest.raises(Exception, match="StoppedError"):
        run_ranks(run_until, 2, config)
    digest, notes = run_in_parts(config, [])
    assert len(digest) == 64
    assert notes == ["continuing from checkpoint-01-0000-00000002, on 1 worker(s) after 2"]
    assert len(read_rows(RunFolder.planned(config))) == 2 + 2 * 3


def run_until(config: RunConfig) -> None:
    with stopped_after((1, 1, 2)):
        run_here(config)
