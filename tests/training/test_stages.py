"""Right after quantizing: BatchNorm's statistics are up to date for the measurement, and training has its own again."""

from pathlib import Path
from typing import Any

import pytest

from inq_ray.training.config import RunConfig
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.run_state import RunState
from tests.ranks import run_ranks
from tests.training.runs import configured, needs_digits, read_rows, run_here, run_in_parts, tiny_config

pytestmark = [pytest.mark.system, needs_digits]

NO_NORM = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"


def is_measured(row: dict[str, str]) -> bool:
    return row["stage"] != "0" and row["epoch"] == "0"


def measured_stale(self: RunState, *, stage: int, portion: float) -> Any:
    """Measures as it was done once."""
    return self.validate(stage=stage, portion=portion)


def stale_run(config: RunConfig) -> tuple[str, list[str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunState, "validate_before_training", measured_stale)
        return run_in_parts(config, [])


@pytest.mark.parametrize(("size", "due"), [(1, "400"), pytest.param(2, "300", marks=pytest.mark.long)])
def test_the_measurement_is_of_images_and_nothing_else_changes(size: int, due: str, tmp_path: Path) -> None:
    quantization = {"weight_bits": 2, "calibration_images": 300}
    honest, stale, stopped = (
        configured(tmp_path, name, quantization=quantization, cluster={"num_workers": size})
        for name in ("honest", "stale", "stopped")
    )
    (digest, _), *_ = run_ranks(run_in_parts, size, honest, [])
    (as_before, _), *_ = run_ranks(stale_run, size, stale)
    (again, _), *_ = run_ranks(run_in_parts, size, stopped, [(1, 2, 4), (2, 1, 2)])
    assert digest == as_before == again
    found, others = (read_rows(RunFolder.planned(config)) for config in (honest, stale))
    assert found == read_rows(RunFolder.planned(stopped))
    assert [row for row in found if not is_measured(row)] == [row for row in others if not is_measured(row)]
    for row, other in zip(filter(is_measured, found), filter(is_measured, others), strict=True):
        assert (row["num_bn_images"], other["num_bn_images"]) == (due, "")
        assert float(row["loss"]) < float(other["loss"])


def test_a_network_without_batchnorm_is_measured_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "net_not_normed.py").write_text(NO_NORM)
    rows = run_here(tiny_config(tmp_path, "none", network={"arch": "net_not_normed:net"})).told.rows
    assert [row.num_bn_images for row in rows] == [None, 0, None, 0, None]


def test_a_network_that_is_not_trained_on_is_measured_as_it_is(tmp_path: Path) -> None:
    finished = run_here(tiny_config(tmp_path, "once", training={"float_epochs": 1, "epochs_each": (1, 0)}))
    assert [row.num_bn_images for row in finished.told.rows] == [None, 512, None, None]
    assert [stage["num_bn_images"] for stage in finished.summary["stages"]] == [512, None]
    assert finished.summary["top1"] == finished.told.rows[-1].top1
