"""Real runs on a real cluster: from a configuration to files, and what is said where that fails."""

import dataclasses
import json
import socket
from pathlib import Path

import pytest

from inq_ray.cluster.failure import RunFailedError
from inq_ray.cluster.trainer import quantize
from inq_ray.export.codes_file import read_codes
from inq_ray.export.model_file import read_model
from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.report.events import Event, Row, Started, Waiting, WorkersPlaced
from inq_ray.training.run_folder import RunFolder
from tests.conftest import RayCluster
from tests.ranks import run_ranks
from tests.training.runs import read_summary, run_here

pytestmark = pytest.mark.ray


class _Events:
    def __init__(self) -> None:
        self.all: list[Event] = []

    def report(self, event: Event) -> None:
        if not isinstance(event, Waiting):
            self.all.append(event)


def _config(folder: Path, name: str, **training: object) -> RunConfig:
    """Two stages of one epoch at 4 bits after four float epochs: seconds."""
    config = default_recipe("digits_cnn", 4).replace(
        quantization={"iterative_steps": (0.5, 1.0)},
        training={"epochs": 1, "float_epochs": 4, **training},
        output={"storage_path": str(folder), "name": name},
    )
    assert config.cluster.num_workers == 2
    return config


def test_a_run_on_ray_is_that_of_its_ranks_alone_and_tells_every_epoch(ray_cluster: RayCluster, tmp_path: Path) -> None:
    events = _Events()
    summary = quantize(_config(tmp_path, "on-ray"), events)
    placed, started, *others = events.all
    assert isinstance(placed, WorkersPlaced)
    assert [line.partition(",")[0] for line in placed.lines] == [
        f"rank {rank}: node 127.0.0.2 ({socket.gethostname()})" for rank in range(2)
    ]
    assert all(line.endswith("cpu with 1 thread, link lo") for line in placed.lines)
    assert isinstance(started, Started)
    assert started.world_size == 2
    rows = [event for event in others if isinstance(event, Row)]
    float_epochs = [(0, epoch) for epoch in range(1, 5)]
    assert [(row.stage, row.epoch) for row in rows] == [*float_epochs, (1, 0), (1, 1), (2, 0), (2, 1)]
    written = (tmp_path / "on-ray" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == [dataclasses.asdict(row) for row in rows]
    assert summary["verification"]["num_weights"] == 25744
    assert summary["top1"] > 90

    alone = _config(tmp_path, "alone")
    run_ranks(run_here, 2, alone, timeout_seconds=300)
    same = read_summary(RunFolder.planned(alone))
    assert summary["digest"] == same["digest"]
    assert summary["verification"]["model_sha256"] == same["verification"]["model_sha256"]


@pytest.mark.long
def test_three_workers_share_a_batch_that_three_does_not_divide(ray_cluster: RayCluster, tmp_path: Path) -> None:
    config = _config(tmp_path, "three").replace(cluster={"num_workers": 3})
    summary = quantize(config, _Events())
    assert summary["world_size"] == 3
    model, codes = (
        read_model(tmp_path / "three" / "model.safetensors"),
        read_codes(tmp_path / "three/codes.safetensors"),
    )
    for name, (codebook, tensor_codes) in codes.items():
        assert codebook.decode(tensor_codes).equal(model[name])


def test_a_failing_worker_is_one_line_with_rank_and_reason(ray_cluster: RayCluster, tmp_path: Path) -> None:
    with pytest.raises(
        RunFailedError, match=r"^rank \d: DivergedError: stage 0, epoch 1 of the run, step \d+: the loss or"
    ) as raised:
        quantize(_config(tmp_path, "diverges", float_lr=1e30), _Events())
    assert "\n" not in str(raised.value)
    assert not RunFolder(tmp_path / "diverges").summary.exists()


def test_more_workers_than_the_cluster_has_are_waited_for_and_nothing_is_written(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    events = _Events()
    missing = r"without room for 99 worker\(s\) of 1 CPU each \(--num-workers\), there is room for \d: add nodes"
    many = {"num_workers": "99..100", "placement_timeout": "1s"}
    with pytest.raises(ValueError, match=r"--placement-timeout 1s has passed " + missing):
        quantize(_config(tmp_path, "many", batch_size=500).replace(cluster=many), events)
    assert events.all
    assert all("waiting up to 1s for room for 99 worker(s)" in str(event) for event in events.all)
    with pytest.raises(ValueError, match=r"without room for 2 .* of 1 CPU and 1 GPU each"):
        quantize(_config(tmp_path, "gpu").replace(cluster={"use_gpu": True, "placement_timeout": "1s"}), _Events())
    assert {path.suffix for path in tmp_path.iterdir()} <= {".lock"}
