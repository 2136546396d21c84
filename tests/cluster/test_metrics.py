"""What a run tells, as Prometheus reads it from the endpoint of a real node."""

import re
import time
import urllib.request

import pytest
import ray

from inq_ray.cluster.metrics import RunMetrics
from inq_ray.training.report.events import Note, Progress, Row, Saved
from inq_ray.training.report.incident import Incident
from tests.conftest import RayCluster

pytestmark = pytest.mark.ray

PROGRESS = Progress(
    stage=2, num_stages=4, portion=0.75, epoch=1, epochs=3, step=5, steps=20, loss=0.5, images_per_second=1234.0,
    data_share=0.1, remaining_seconds=60.0,
)  # fmt: skip
ROW = Row(stage=2, portion=0.75, epoch=1, top1=91.5, top5=99.0, loss=0.25, validation_seconds=1.0)
TRAINED = Row(
    stage=2, portion=0.75, epoch=2, top1=92.5, top5=99.0, loss=0.25, validation_seconds=1.0,
    train_seconds=8.0, data_seconds=0.0, network_seconds=2.0,
)  # fmt: skip

EXPECTED = {
    "ray_inq_stage": 2,
    "ray_inq_portion": 0.75,
    "ray_inq_top1_percent": 92.5,
    "ray_inq_loss": 0.5,
    "ray_inq_images_per_second": 1234,
    "ray_inq_remaining_seconds": 60,
    "ray_inq_train_seconds_total": 16,
    "ray_inq_sync_seconds_total": 4,
    "ray_inq_checkpoint_seconds_total": 0.5,
    "ray_inq_incidents_total": 1,
}


def scrape() -> dict[str, float]:
    """Value of each metric of ours of the run, by its name; empty if the node does not serve any yet."""
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    found = re.findall(r'^(ray_inq_\w+)\{[^\n]*run="measured"[^\n]*\} (\S+)$', text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_a_node_serves_them(ray_cluster: RayCluster) -> None:
    metrics = RunMetrics("measured")
    lost = Incident(kind="workers_lost", text="rank 1 is gone")
    saved = Saved(name="checkpoint", seconds=0.5)
    for event in (Note("begins"), PROGRESS, ROW, TRAINED, saved, TRAINED, lost):
        metrics.report(event)
    deadline = time.monotonic() + 300  # Ray exports every ten seconds
    while (found := scrape()) != EXPECTED:
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
