"""Contents of summary.json in addition to journal and verification."""

import platform
from importlib import metadata
from typing import Any

import torch

from inq_ray import __version__
from inq_ray.models.layer_bits import words_of_bits
from inq_ray.training.config import RunConfig
from inq_ray.training.report.events import Row


def figures(config: RunConfig, rows: list[Row]) -> dict[str, Any]:
    """Return float accuracy, that of each stage right after quantizing and after re-training, and the final one.

    Args:
        config: Configuration of the run.
        rows: Its metrics, in order; top-1 and top-5 in percent.
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
                "num_bn_images": of_stage[0].num_bn_images,
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
        "layer_bits": list(words_of_bits(config.layer_bits)),
        "levels": config.quantization.levels,
        "codebook_per": config.quantization.codebook_per,
        "float_top1": float_rows[-1].top1 if float_rows else None,
        "float_top5": float_rows[-1].top5 if float_rows else None,
        "stages": stages,
        "top1": rows[-1].top1,
        "top5": rows[-1].top5,
    }


def surroundings(device: torch.device) -> dict[str, Any]:
    """Return rank 0's device, and versions."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": {
            "inq_ray": __version__,
            "torch": torch.__version__,
            "ray": _version_of_ray(),
            "python": platform.python_version(),
        },
    }


def _version_of_ray() -> str | None:
    """Return the version of Ray, None if it is not installed; without importing it, which only the cluster may do."""
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        return None
