"""Progress of a run, reported about once a second."""

import dataclasses
import math
import time
from collections.abc import Sequence

from inq_ray.training.loop.trainer import EpochState
from inq_ray.training.report.events import Progress, Reporter

# Shortest time between reports, except for the steps of --print-freq.
_SECONDS = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Epoch:
    """An epoch of a phase: stage (0 = float training), portion, number from 1, epochs of the phase, steps per epoch."""

    stage: int
    portion: float
    epoch: int
    epochs: int
    steps: int


class ProgressReporter:
    """Turns steps into :class:`inq_ray.training.report.events.Progress`.

    Args:
        reporter: Receives them.
        phases: Number of epochs per phase: of the float training, and of each stage.
        batch_size: Images per step, over all ranks.
        print_freq: Steps between printed lines; None = no printed lines.

    Attributes:
        validation_seconds: Duration of the longest validation so far.
    """

    def __init__(self, reporter: Reporter, *, phases: Sequence[int], batch_size: int, print_freq: int | None) -> None:
        self.validation_seconds = 0.0
        self._reporter = reporter
        self._num_stages = len(phases) - 1
        self._num_epochs = sum(phases)
        self._batch_size = batch_size
        self._print_freq = print_freq
        self._last = 0.0

    def report(self, epoch: Epoch, epochs_done: int, state: EpochState) -> None:
        """Report a step, if one is due.

        Args:
            epoch: The epoch.
            epochs_done: Epochs before it, over the whole run.
            state: Position and measurements within the epoch.
        """
        now, step, seconds = time.perf_counter(), state.step, state.seconds
        is_printed = self._print_freq is not None and step % self._print_freq == 0
        if now - self._last < _SECONDS and not is_printed:
            return
        self._last = now
        loss, _, samples = state.sums.tolist()
        epochs_left = self._num_epochs - epochs_done - step / epoch.steps
        self._reporter.report(
            Progress(
                **dataclasses.asdict(epoch),
                num_stages=self._num_stages,
                step=step,
                loss=loss / samples if samples else math.nan,
                images_per_second=step * self._batch_size / seconds,
                data_share=state.data_seconds / seconds,
                remaining_seconds=epochs_left * (seconds * epoch.steps / step + self.validation_seconds),
                is_printed=is_printed,
            )
        )
