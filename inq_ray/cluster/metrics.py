"""Metrics of a run for Prometheus, by Ray's own exporter: the driver's node serves them with Ray's."""

from ray.util.metrics import Counter, Gauge

from inq_ray.training.report.events import Event, Progress, Row, Saved
from inq_ray.training.report.incident import Incident

_RUN = ("run",)


class RunMetrics:
    """A reporter that sets metrics, each with the tag `run`; Ray exports them as `ray_inq_...`.

    Metrics exist as long as this process, the driver of the run.

    Args:
        run: Name of the run.
    """

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._stage = Gauge("inq_stage", "Stage; 0 during float training.", _RUN)
        self._portion = Gauge("inq_portion", "Accumulated fraction of frozen weights.", _RUN)
        self._top1 = Gauge("inq_top1_percent", "Top-1 accuracy on the validation images.", _RUN)
        self._loss = Gauge("inq_loss", "Mean training loss of the epoch so far, on rank 0.", _RUN)
        self._speed = Gauge("inq_images_per_second", "Images per second of all workers, in this epoch.", _RUN)
        self._remaining = Gauge("inq_remaining_seconds", "Estimated time to the end of the run.", _RUN)
        self._train = Counter("inq_train_seconds", "Time in training epochs.", _RUN)
        self._data = Counter("inq_data_wait_seconds", "Time in training epochs spent waiting for images.", _RUN)
        self._network = Counter("inq_sync_seconds", "Time in training epochs spent waiting for gradients.", _RUN)
        self._checkpoints = Counter("inq_checkpoint_seconds", "Time that training was blocked by checkpoints.", _RUN)
        self._incidents = Counter("inq_incidents", "Incidents by kind, as in events.jsonl.", (*_RUN, "kind"))

    def report(self, event: Event) -> None:
        """Handle an event of rank 0."""
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
        if seconds:  # Ray refuses to add 0
            counter.inc(seconds, self._tags)
