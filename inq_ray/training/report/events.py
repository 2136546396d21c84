"""Events of a run, and the interface of reporters. Light: a process that passes them on needs no torch."""

from dataclasses import dataclass
from typing import Protocol

from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.report.incident import Incident


@dataclass(frozen=True, kw_only=True)
class Started:
    """First event of a run: its size."""

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
    """Position of the run; about once a second.

    Attributes:
        stage: 0 during float training, else from 1.
        num_stages: Number of stages; 0 for plain training.
        portion: Accumulated fraction of frozen weights.
        epoch: Epoch from 1, within the stage.
        epochs: Number of epochs of the stage.
        step: Global batches done in this epoch.
        steps: Global batches per epoch.
        loss: Mean over this epoch's batches on rank 0 so far.
        images_per_second: Images of all workers together, in this epoch.
        data_share: Fraction of the epoch's time so far in which rank 0 waited for images.
        remaining_seconds: Time to the end of the run, at this speed.
        is_printed: Whether to print a permanent line, by --print-freq.
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
    """A line of metrics: an epoch, or (epoch 0) the network right after quantizing or before training.

    Accuracies are in percent, losses are means over the samples, both over all ranks. Of `train_seconds`, ranks waited
    `data_seconds` for images and `network_seconds` for gradients, see :mod:`inq_ray.training.loop.time_spent`;
    `num_bad_images` and `num_skipped_steps` are the totals left out so far. `num_bn_images` is the number of training
    images from which BatchNorm's statistics were estimated for this measurement alone, 0 if the network has none; None:
    it was measured with the network's own, which right after quantizing are stale unless nothing is trained.
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
    num_bn_images: int | None = None


@dataclass(frozen=True)
class WorkersPlaced:
    """Placement of the ranks: a line for each, by rank, with its node, device and link."""

    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint was taken; writing continues in the background.

    Attributes:
        name: Name of the checkpoint.
        seconds: Time for which rank 0 was blocked.
    """

    name: str
    seconds: float


@dataclass(frozen=True)
class Note:
    """A line for the user, such as the checkpoint that a run continues from."""

    text: str


@dataclass(frozen=True)
class Waiting:
    """What the run waits for, such as the start of Ray, until another event shows that it continues."""

    text: str


@dataclass(frozen=True)
class Measured:
    """Figures of a benchmark, as JSON."""

    text: str


Event = WorkersPlaced | Started | Progress | Row | Saved | Note | Waiting | Incident | Accuracy | Measured


class Reporter(Protocol):
    """Receives rank 0's events. Returns at once: training does not wait for readers."""

    def report(self, event: Event) -> None:
        """Handle an event."""


class SilentReporter:
    """Discards all events; the reporter of ranks other than 0."""

    def report(self, event: Event) -> None:
        """Discard the event."""
