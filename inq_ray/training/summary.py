"""The figures of a run, from its metrics."""

from typing import Any

from inq_ray.training.config import RunConfig
from inq_ray.training.reporter import Row


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
        "weight_bits": None if config.plain else config.quantization.weight_bits,
        "float_top1": float_rows[-1].top1 if float_rows else None,
        "float_top5": float_rows[-1].top5 if float_rows else None,
        "stages": stages,
        "top1": rows[-1].top1,
        "top5": rows[-1].top5,
    }
