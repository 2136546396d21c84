"""Rows as a run of two stages tells them."""

from typing import Any

from inq_ray.training.report.events import Row


def row(stage: int, epoch: int, **values: Any) -> Row:
    defaults = {
        "portion": 0.5 * stage, "top1": 90.0 + stage + epoch / 10, "top5": 99.0, "loss": 0.5, "validation_seconds": 1.0,
    }  # fmt: skip
    trained = {"lr": 0.1, "train_loss": 0.25, "train_top1": 98.0, "train_seconds": 2.0, "images_per_second": 1234.0}
    return Row(**{"stage": stage, "epoch": epoch, **defaults, **(trained if epoch else {}), **values})


# As given, two epochs in float, and two stages of one epoch, each quantized first.
ROWS = [row(0, 0), row(0, 1), row(0, 2), row(1, 0), row(1, 1), row(2, 0), row(2, 1)]

SUMMARY: dict[str, Any] = {
    "name": "tiny", "weight_bits": 5, "float_top1": None, "top1": 92.1, "digest": "ab" * 32,
    "stages": [{"stage": 1, "top1": 91.1}, {"stage": 2, "top1": 92.1}], "config": {"training": {"lr": 0.1}},
}  # fmt: skip
