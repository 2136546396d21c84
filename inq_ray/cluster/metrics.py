"""Metrics of a run for Prometheus, by Ray's own exporter: the node of the driver serves them with Ray's."""

from ray.util.metrics import Counter, Gauge

from inq_ray.training.report.events import Event, Progress, Row, Saved
from inq_ray.training.report.incident import Incident

_RUN = ("run",)


class RunMetrics:
    """A reporter that keeps metrics, each with the tag `run`; Ray exports them as `ray_inq_...`.

    Metrics live as long as this process, the driver of the run.

    Args:
        run: name of the run.
    """

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._stage = Gauge("inq_stage", "0 while the network is float, then from 1", _RUN)
        self._portion = Gauge("inq_portion", "accumulated fraction of the weights that is frozen", _RUN)
        self._top1 = Gauge("inq_top1_percent", "top-1 on the validation images", _RUN)
        self._loss = Gauge("inq_loss", "mean training loss of the epoch so far, on rank 0", _RUN)
        self._speed = Gauge("inq_images_per_second", "of all workers together, in this epoch", _RUN)
        self._remaining = Gauge("inq_remaining_seconds", "to the end of the run, at this speed", _RUN)
        self._train = Counter("inq_train_seconds", "time in training's epochs", _RUN)
        self._data = Counter("inq_data_wait_seconds", "of these, waiting for images", _RUN)
        self._network = Counter("inq_sync_seconds", "of these, waiting for gradients", _RUN)
        self._checkpoints = Counter("inq_checkpoint_seconds", "training stood still for checkpoints", _RUN)
        self._incidents = Counter("inq_incidents", "what does not happen in a calm run: events.jsonl", (*_RUN, "kind"))

    def report(self, event: Event) -> None:
        """Takes what rank 0 tells."""
        match event:
            case Progress():
                self._set_position(event.stage, event.portion)
                self._loss.set(event.loss, self._tags)
                self._speed.set(event.images_per_second, self._tags)
                self._remaining.set(event.remaining_seconds, self._tags)
            case Row():
                self._set_position(event.stage, event.portion)
                self._top1.set(event.top1, self._tags)
                self._add(self._train, event.train_seconds)
                self._add(self._data, event.data_seconds)
                self._add(self._network, event.network_seconds)
            case Saved():
                self._add(self._checkpoints, event.seconds)
            case Incident():
                self._incidents.inc(1, {**self._tags, "kind": event.kind})
            case _:
                pass

    def _set_position(self, stage: int, portion: float) -> None:
        self._stage.set(stage, self._tags)
        self._portion.set(portion, self._tags)

    def _add(self, counter: Counter, seconds: float | None) -> None:
        if seconds:  # Ray refuses to add nothing
            counter.inc(seconds, self._tags)
