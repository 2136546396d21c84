"""The end of a run: its result is written, read back and proved."""

import dataclasses
import platform
from importlib import metadata
from typing import Any

import torch

from inq_ray import __version__
from inq_ray.distributed.wire import rank, world_size
from inq_ray.export.formats import write_result
from inq_ray.export.verify import verify
from inq_ray.scheduler import INQScheduler
from inq_ray.training.config import RunConfig
from inq_ray.training.journal import Journal
from inq_ray.training.report.events import Row
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.task.build import Task


def finish(
    config: RunConfig, task: Task, inq: INQScheduler | None, journal: Journal, folder: RunFolder, digest: str
) -> dict[str, Any]:
    """Writes the result, reads it back, and proves it; summary.json comes last. Every rank calls it, rank 0 writes.

    Args:
        config: of the run.
        task: the network as it is left.
        inq: what of it is frozen; None where nothing was quantized.
        journal: what the run remembers.
        folder: of the run.
        digest: of the network, the same on every rank.

    Returns:
        The summary; of other ranks than rank 0 without what only rank 0 knows.

    Raises:
        ValueError: result, metrics or summary cannot be written.
        VerificationError: the written files are not what they should be.
    """
    summary = {**summarize(config, journal.rows), "digest": digest, "world_size": world_size()}
    if rank() != 0:
        return summary
    state = task.model.state_dict()
    write_result(folder.result, state, inq.state if inq else {})
    verification = verify(folder.result, inq.state if inq else {})
    journal.flush_metrics()
    summary |= {
        **journal.summary(),
        "verification": dataclasses.asdict(verification),
        "device": _device_name(task.to_input.device),
        "versions": {
            "inq_ray": __version__,
            "torch": torch.__version__,
            "ray": _version_of_ray(),
            "python": platform.python_version(),
        },
        "config": dataclasses.asdict(config),
    }
    folder.write_summary(summary)
    return summary


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _version_of_ray() -> str | None:
    """Of the Ray that is installed, None where none is; read without importing it, which is for the cluster alone."""
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        return None


def summarize(config: RunConfig, rows: list[Row]) -> dict[str, Any]:
    """Figures of a run: float accuracy, each stage right after quantizing and after re-training, the final ones.

    Args:
        config: of the run.
        rows: its metrics, in order; top-1 and top-5 in percent.
    """
    float_rows = [row for row in rows if row.stage == 0]
    stages = []
    for stage in sorted({row.stage for row in rows} - {0}):
        of_stage = [row for row in rows if row.stage == stage]
        stages.append(
            {
                "stage": stage,
                "portion": of_stage[0].portion,
                "top1_quantized": of_stage[0].top1,
                "top1": of_stage[-1].top1,
                "top5": of_stage[-1].top5,
            }
        )
    return {
        "name": config.output.name,
        "arch": config.network.arch,
        "data": config.data.data,
        "measured_on": "held-out training images" if config.data.holdout else "test set",
        "weight_bits": config.num_bits,
        "float_top1": float_rows[-1].top1 if float_rows else None,
        "float_top5": float_rows[-1].top5 if float_rows else None,
        "stages": stages,
        "top1": rows[-1].top1,
        "top5": rows[-1].top5,
    }
