"""TensorBoard: an event file in the run's folder.

It is written with TensorBoard's own modules instead of torch's SummaryWriter, which writes in its own thread and
prints a traceback when a disk is full.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inq_ray.tracking.metrics import Scalar, Tracker, numbers

# Metric that the HPARAMS page compares runs by.
_COMPARED = "validation/top1"


def needs() -> tuple[str, ...]:
    """Return the required packages."""
    return ("tensorboard",)


def start(name: str, parameters: Mapping[str, Scalar], folder: Path) -> Tracker:  # noqa: ARG001, it shows the folder's
    """Create the event file in the run's folder "tensorboard"; the parameters are its HPARAMS page."""
    events = folder / "tensorboard"
    events.mkdir(exist_ok=True)
    # TensorBoard finds the file by this name; a resumed run has another one.
    path = events / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
    return _TensorBoard(path.open("xb"), parameters)


class _TensorBoard:
    def __init__(self, file: Any, parameters: Mapping[str, Scalar]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard.summary import hparams

        self._event = Event
        self._records = RecordWriter(file)
        self._epoch = 0
        self._write(file_version="brain.Event:2")
        compared, begun, self._ended = hparams(dict(parameters), {_COMPARED: 0.0})  # type: ignore[no-untyped-call]
        for part in (compared, begun):
            self._write(summary=part)
        self._records.flush()

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        from torch.utils.tensorboard.summary import scalar

        self._epoch = epoch
        for name, value in metrics.items():
            self._write(step=epoch, summary=scalar(name, value))  # type: ignore[no-untyped-call]
        self._records.flush()

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        from torch.utils.tensorboard.summary import text

        if summary is not None:
            self.log({f"summary/{name}": value for name, value in numbers(summary).items()}, self._epoch)
            lines = "\n".join(f"    {name}: {value}" for name, value in summary.items())
            self._write(step=self._epoch, summary=text("summary", lines))  # type: ignore[no-untyped-call]
        self._write(summary=self._ended)
        self._records.close()

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
