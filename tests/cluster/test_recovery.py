"""Workers that are killed in the middle of a real run: it goes on by itself, and ends with the bits of a calm one."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from inq_ray.cluster.trainer import quantize
from inq_ray.training.config import RunConfig
from inq_ray.training.incident import Incident
from inq_ray.training.recipes import default_recipe
from inq_ray.training.reporter import Event, Note
from tests.conftest import RayCluster

pytestmark = pytest.mark.ray


class _Notes:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def report(self, event: Event) -> None:
        if isinstance(event, Note | Incident):
            self.texts.append(event.text)


def _config(folder: Path, name: str) -> RunConfig:
    """Some seconds of training; a checkpoint every seventh step, so that it is somewhere within an epoch."""
    return default_recipe("digits_cnn", 4).replace(
        quantization={"iterative_steps": (0.5, 1.0)},
        training={"epochs": 20, "float_epochs": 1},
        output={"storage_path": str(folder), "name": name, "checkpoint_every": "7"},
    )


def _kill_a_worker(checkpoints: Path, stages: list[int], killed: list[int]) -> None:
    """For each stage, once it has a checkpoint of re-training, one of the training workers gets SIGKILL."""
    for stage in stages:
        while not any(name >= f"checkpoint-{stage:02}-0003" for name in _names(checkpoints, stage)):
            time.sleep(0.02)
        workers = _train_workers()
        victim = workers[stage % len(workers)]
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)


def _train_workers() -> list[int]:
    """Process ids of Ray Train's workers below this process: never those of another cluster."""
    parents, workers = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if (folder / "cmdline").read_bytes().startswith(b"ray::RayTrainWorker"):
                workers.append(int(folder.name))
        except OSError:
            continue  # it has ended

    def is_ours(process: int) -> bool:
        return process == os.getpid() or (process in parents and is_ours(parents[process]))

    return sorted(filter(is_ours, workers))


def _names(checkpoints: Path, stage: int) -> list[str]:
    return [path.name for path in checkpoints.glob(f"checkpoint-{stage:02}-*")]


def test_killed_workers_change_nothing(ray_cluster: RayCluster, tmp_path: Path) -> None:
    calm = quantize(_config(tmp_path, "calm"), _Notes())
    notes, killed = _Notes(), list[int]()
    checkpoints = tmp_path / "killed" / "checkpoints"
    thread = threading.Thread(target=_kill_a_worker, args=(checkpoints, [1, 2], killed), daemon=True)
    thread.start()
    summary = quantize(_config(tmp_path, "killed"), notes)
    assert len(killed) == 2
    assert [text for text in notes.texts if "starting again" in text] == [
        text for text in notes.texts if text.startswith("rank ")
    ]
    assert sum("starting again" in text for text in notes.texts) == 2
    assert [text[: len("going on from checkpoint-01")] for text in notes.texts if text.startswith("going on")] == [
        "going on from checkpoint-01",
        "going on from checkpoint-02",
    ]
    assert summary["digest"] == calm["digest"]
    assert summary["stages"] == calm["stages"]
