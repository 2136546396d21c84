"""The measurement itself, of a small network on ranks of this machine."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from inq_ray.benchmark.figures import QUANTITIES, Figure
from inq_ray.benchmark.measure import measure
from inq_ray.benchmark.step import EXCHANGES, NONE
from inq_ray.benchmark.subject import PORTIONS, Settings
from inq_ray.distributed.wire import rank
from inq_ray.training.config import RunConfig
from tests.ranks import run_ranks

_OF_RANKS = {"step_bytes", "link", "link_latency"}
# Of digits_cnn: all parameters, and those that are not quantized.
_NUM_PARAMS, _NUM_FLOAT = 25_978, 234


def _config(num_workers: int) -> RunConfig:
    return RunConfig().replace(cluster={"num_workers": num_workers}, training={"batch_size": 8 * num_workers})


def _measure(num_workers: int, scratch: str, fingerprint: str | None) -> tuple[list[dict[str, object]], list[str]]:
    told: list[str] = []
    settings = Settings(is_quick=True, fingerprint=fingerprint, scratch=scratch)
    figures = measure(_config(num_workers), settings, torch.device("cpu"), tell=told.append, wait_for=lambda _: None)
    assert rank() == 0 or "checkpoint_stall" not in {figure.what for figure in figures}
    return [asdict(figure) for figure in figures], told


def test_two_ranks_measure_everything_and_bytes_follow_the_portion(tmp_path: Path) -> None:
    scratch = tmp_path / ".benchmark-x"
    (measured, told), _ = run_ranks(_measure, 2, 2, str(scratch), None)
    figures = [Figure(**each) for each in measured]  # type: ignore[arg-type]
    assert {figure.what for figure in figures} == QUANTITIES.keys() - {"input"}
    found = {(figure.what, figure.portion, figure.gradients): figure.median for figure in figures}
    assert len(found) == len(figures)
    for portion in PORTIONS:
        dense = found["step_bytes", portion, "dense"]
        assert dense == 4 * _NUM_PARAMS
        assert found["step_bytes", portion, "bf16"] == dense / 2
        live = 4 * (_NUM_FLOAT + (1 - portion) * (_NUM_PARAMS - _NUM_FLOAT))
        assert found["step_bytes", portion, "live"] == pytest.approx(live, rel=1e-3)
        assert found["step_bytes", portion, "live + bf16"] == found["step_bytes", portion, "live"] / 2
        assert all(found["step", portion, kind] > 0 for kind in (*EXCHANGES, NONE))
    assert len(told) == 1
    assert told[0].startswith("2 worker(s): a step takes ")
    assert not scratch.exists()


def test_one_rank_measures_the_rest_and_the_input(tmp_path: Path) -> None:
    from inq_ray.training.task.build import open_data

    fingerprint = open_data(_config(1)).info.fingerprint
    ((measured, _),) = run_ranks(_measure, 1, 1, str(tmp_path / ".benchmark-x"), fingerprint)
    assert {each["what"] for each in measured} == QUANTITIES.keys() - _OF_RANKS
    assert {each["gradients"] for each in measured if each["what"] == "step"} == {NONE}
