"""TensorBoard: an event file in the run's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inq_ray.tracking.metrics import Scalar, Tracker, numbers

# What the HPARAMS page of several runs compares them by.
_COMPARED = "validation/top1"


def start(name: str, parameters: Mapping[str, Scalar], folder: Path) -> Tracker:  # noqa: ARG001, it shows the folder's
    """Makes the event file in "tensorboard", a folder in the run's; the parameters are its HPARAMS page."""
    from torch.utils.tensorboard import SummaryWriter

    return _TensorBoard(SummaryWriter(str(folder / "tensorboard")), parameters)


class _TensorBoard:
    def __init__(self, writer: Any, parameters: Mapping[str, Scalar]) -> None:
        from torch.utils.tensorboard.summary import hparams

        self._writer = writer
        self._epoch = 0
        compared, begun, self._ended = hparams(dict(parameters), {_COMPARED: 0.0})  # type: ignore[no-untyped-call]
        for part in (compared, begun):
            writer.file_writer.add_summary(part)
        writer.flush()

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        self._epoch = epoch
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        values = summary or {}
        for name, value in numbers(values).items():
            self._writer.add_scalar(f"summary/{name}", value, self._epoch)
        if values:
            self._writer.add_text("summary", "\n".join(f"    {name}: {value}" for name, value in values.items()))
        self._writer.file_writer.add_summary(self._ended)
        self._writer.close()
