"""Where a run is, told about once a second."""

import dataclasses
import math
import time

from inq_ray.training.config import RunConfig
from inq_ray.training.loop.trainer import EpochState
from inq_ray.training.report.events import Progress, Reporter

# Progress is told at most this often, but for the steps that --print-freq names.
_SECONDS = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Epoch:
    """An epoch of a phase: its stage (0 = still float), portion, number from 1, epochs of the phase, steps of one."""

    stage: int
    portion: float
    epoch: int
    epochs: int
    steps: int


class ProgressTeller:
    """Turns steps into :class:`inq_ray.training.report.events.Progress`.

    Args:
        config: of the run.
        reporter: who is told.

    Attributes:
        validation_seconds: of the longest validation so far.
    """

    def __init__(self, config: RunConfig, reporter: Reporter) -> None:
        self.validation_seconds = 0.0
        self._config = config
        self._reporter = reporter
        self._num_epochs = config.float_epochs + sum(config.stage_epochs)
        self._last = 0.0

    def tell(self, epoch: Epoch, epochs_done: int, state: EpochState) -> None:
        """To be called after each step.

        Args:
            epoch: the epoch.
            epochs_done: epochs before it, over the whole run.
            state: where it is.
        """
        now, step, seconds = time.perf_counter(), state.step, state.seconds
        print_freq = self._config.output.print_freq
        is_printed = print_freq is not None and step % print_freq == 0
        if now - self._last < _SECONDS and not is_printed:
            return
        self._last = now
        loss, _, samples = state.sums.tolist()
        epochs_left = self._num_epochs - epochs_done - step / epoch.steps
        self._reporter.report(
            Progress(
                **dataclasses.asdict(epoch),
                num_stages=len(self._config.stage_epochs),
                step=step,
                loss=loss / samples if samples else math.nan,
                images_per_second=step * self._config.training.batch_size / seconds,
                data_share=state.data_seconds / seconds,
                remaining_seconds=epochs_left * (seconds * epoch.steps / step + self.validation_seconds),
                is_printed=is_printed,
            )
        )
