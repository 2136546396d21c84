"""Folders of runs and sweeps for the tests of reports, written without training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from inq_ray.export.formats import write_result
from inq_ray.export.result import Result
from inq_ray.export.verify import verify
from inq_ray.report.files import Files
from inq_ray.report.run.record import RunRecord, read_run
from inq_ray.storage.address import locate
from inq_ray.training.report.events import Row
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.summary import figures
from tests.export.results import quantized
from tests.training.runs import tiny_config

# Where markup, formulas, line ends and other writing directions would do harm.
HOSTILE = "<script>alert(1)</script>'\"&$x^2$\u202e\x1b[31m\n</style><img src=//a.example>{{7}}"


def rows() -> list[Row]:
    """A float measurement, and three stages of two epochs."""
    found = [Row(stage=0, portion=0.0, epoch=0, top1=91.5, top5=99.0, loss=0.3, validation_seconds=1.0)]
    for stage, portion in enumerate((0.5, 0.75, 1.0), start=1):
        measured: dict[str, Any] = {"stage": stage, "portion": portion, "top5": 99.0, "validation_seconds": 1.0}
        found.append(Row(**measured, epoch=0, top1=80.0 + stage, loss=0.9))
        found += [
            Row(**measured, epoch=epoch, top1=88.0 + stage + epoch / 4, loss=0.4 / epoch, lr=0.01 / epoch,
                train_loss=0.5 / epoch, train_top1=90.0, train_seconds=10.0, data_seconds=1.0, network_seconds=2.5,
                images_per_second=1000.0 * epoch)
            for epoch in (1, 2)
        ]  # fmt: skip
    return found


def write_run(storage: Path, name: str = "mine", *, finished: bool = True, facts: dict[str, Any] | None = None) -> Path:
    """A run's folder: finished, or failed in its last stage."""
    config = tiny_config(storage, name, network={"arch": "cifar_resnet20", "weights": "a.safetensors"})
    folder = RunFolder.create(config)
    measured = rows() if finished else rows()[:-2]
    folder.rewrite(measured)
    incidents = [{"time": 1_796_043_894.5, "kind": "workers_lost", "text": "rank 1 is lost", "seconds_lost": None}]
    if not finished:
        incidents.append({"time": 1_796_043_999, "kind": "failed", "text": "out of memory", "seconds_lost": 60.0})
    folder.events.write_text("".join(json.dumps(line) + "\n" for line in incidents))
    if not finished:
        return folder.path
    network, states = quantized(3)
    stored = {"class_names": ["a", "b"], "accuracy": {"data_fingerprint": "abcd"}} if facts is None else facts
    write_result(folder.path, Result(network.state_dict(), states, stored), name)
    summary = {
        **figures(config, measured),
        "digest": "d1" * 32,
        "world_size": 2,
        "world_sizes": [2, 1],
        "spent": {"seconds": 60.0, "data_seconds": 6.0, "network_seconds": 15.0, "bound_by": "network"},
        "events": {"counts": {"workers_lost": 1}, "seconds_lost": 0},
        "seconds": 90.0,
        "verification": dataclasses.asdict(verify(folder.path, states)),
        "images": ["images: 3x32x32 (channels, height, width)"],
        "device": "cpu",
        "versions": {"inq_ray": "0.2.0", "torch": "2.15.0"},
        "config": dataclasses.asdict(config),
    }
    folder.write_summary(summary)
    return folder.path


def record_of(folder: Path) -> RunRecord:
    """What a report reads of a run."""
    return read_run(Files(locate(str(folder))))
