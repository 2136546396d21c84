"""What a run tells while it goes on, and to whom. Light: the process that passes it on needs no torch."""

from dataclasses import dataclass
from typing import Protocol

from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.report.incident import Incident


@dataclass(frozen=True, kw_only=True)
class Started:
    """The first thing that a run tells: its size."""

    arch: str
    num_parameters: int
    num_quantized: int
    num_train: int
    num_validation: int
    world_size: int
    device: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the run is; about once a second.

    Attributes:
        stage: 0 while the network is still float, else from 1.
        num_stages: 0 for plain training.
        portion: accumulated fraction that is frozen.
        epoch: from 1, within the stage.
        epochs: of the stage.
        step: global batches done in this epoch.
        steps: global batches of an epoch.
        loss: mean of this epoch's batches on rank 0 so far.
        images_per_second: of all workers together, in this epoch.
        data_share: part of the epoch's time so far in which rank 0 waited for images.
        remaining_seconds: to the end of the run, at this speed.
        is_printed: whether it is to stay, as --print-freq asks.
    """

    stage: int
    num_stages: int
    portion: float
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_second: float
    data_share: float
    remaining_seconds: float
    is_printed: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of metrics: an epoch, or (epoch 0) the network right after quantizing or before any training.

    Accuracies are in percent, losses are means over the samples, both over all ranks. `data_seconds` are those of
    `train_seconds` in which ranks waited for images, `network_seconds` those in which they waited for gradients, see
    :mod:`inq_ray.training.loop.time_spent`; `num_bad_images` and `num_skipped_steps` were left out so far.
    """

    stage: int
    portion: float
    epoch: int
    top1: float
    top5: float
    loss: float
    validation_seconds: float
    lr: float | None = None
    train_loss: float | None = None
    train_top1: float | None = None
    train_seconds: float | None = None
    data_seconds: float | None = None
    network_seconds: float | None = None
    images_per_second: float | None = None
    num_bad_images: int = 0
    num_skipped_steps: int = 0


@dataclass(frozen=True)
class WorkersPlaced:
    """Where the ranks run: a line for each, by rank, with its node, device and link."""

    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint was taken; it is being written.

    Attributes:
        name: of the checkpoint.
        seconds: for which rank 0 stood still.
    """

    name: str
    seconds: float


@dataclass(frozen=True)
class Note:
    """A line that a person should see, such as where a run goes on."""

    text: str


@dataclass(frozen=True)
class Waiting:
    """What the run waits for, such as the start of Ray, until another event shows that it goes on."""

    text: str


Event = WorkersPlaced | Started | Progress | Row | Saved | Note | Waiting | Incident | Accuracy


class Reporter(Protocol):
    """Takes what rank 0 tells. It returns at once: training does not wait for whoever reads."""

    def report(self, event: Event) -> None:
        """Take an event."""


class SilentReporter:
    """Keeps nothing; the reporter of ranks other than 0."""

    def report(self, event: Event) -> None:
        """Forget the event."""
