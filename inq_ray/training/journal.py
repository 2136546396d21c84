"""Journal of a run: metrics, faults, time; rank 0 reports and writes them."""

import dataclasses
import time
from collections.abc import Callable

import torch
from torch import Tensor

from inq_ray.data.image_set import BadImage
from inq_ray.distributed.replica import sum_counts
from inq_ray.distributed.wire import rank, world_size
from inq_ray.training.checkpoint.facts import History, Seconds
from inq_ray.training.checkpoint.snapshot import Snapshot
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.loop.gradients import GradientChoice
from inq_ray.training.loop.non_finite import Faults
from inq_ray.training.loop.time_spent import Spent
from inq_ray.training.loop.trainer import EpochState
from inq_ray.training.report.events import Event, Note, Reporter, Row
from inq_ray.training.report.incident import Incident, IncidentLog, Kind
from inq_ray.training.report.progress import Epoch, ProgressReporter
from inq_ray.training.run_folder import RunFolder


class Journal:
    """Journal of one run on one rank; contents are the same on every rank, and only rank 0 reports and writes.

    Args:
        reporter: Receives rank 0's events.
        progress: Receives steps.
        folder: Folder of the run.
        skip_bad_images: Maximum number of images that may be left out.
        num_data_shards: Value of the attribute for a new run.
        faults: Faults of a previous attempt.

    Attributes:
        rows: Metrics so far.
        epochs_done: Epochs over the whole run.
        spent: Time in training, and time spent waiting.
        bad_images: Images left out so far.
        faults: Steps that were not finite so far.
        began: When the run would have begun without interruptions, by time.perf_counter().
        num_data_shards: Number of shards for the order of samples that are read in groups: the run's maximum number of
            workers when it began, so that batches do not depend on the number it continues with.
        world_sizes: Numbers of ranks that it ran on, one after the other.
        gradients: Gradients that ranks exchange in this stage by --gradient-communication auto; None if not measured.
        found_lr: Learning rate of the stages that --lr-probe found; None without it, or before.
    """

    def __init__(
        self,
        reporter: Reporter,
        progress: ProgressReporter,
        folder: RunFolder,
        *,
        skip_bad_images: int,
        num_data_shards: int,
        faults: Faults | None = None,
    ) -> None:
        self.rows: list[Row] = []
        self.epochs_done = 0
        self.spent = Spent()
        self.bad_images = BadImages(skip_bad_images)
        self.faults = faults or Faults()
        self.began = time.perf_counter()
        self.num_data_shards = num_data_shards
        self.world_sizes: tuple[int, ...] = (world_size(),)
        self.gradients: GradientChoice | None = None
        self.found_lr: float | None = None
        self._keeps_faults = faults is not None
        self._reporter = reporter
        self._folder = folder
        self._log = IncidentLog(folder.events, folder.check_writer)
        self._progress = progress
        self._num_skipped_reported = self.faults.num_skipped
        self._is_behind = False

    @property
    def seconds(self) -> float:
        """Return the time spent in the run, without what was lost."""
        return time.perf_counter() - self.began

    def report(self, event: Event) -> None:
        """Pass an event to the reporter; rank 0."""
        self._reporter.report(event)

    def note(self, kind: Kind, text: str, seconds_lost: float | None = None) -> None:
        """Report an incident and write it to the log; rank 0."""
        incident = Incident(kind=kind, text=text, seconds_lost=seconds_lost)
        self._log.add(incident)
        self._reporter.report(incident)

    def add(self, row: Row) -> None:
        """Add a row of metrics."""
        self.rows.append(row)
        self._progress.validation_seconds = max(self._progress.validation_seconds, row.validation_seconds)
        if rank() == 0:
            self._write_metrics(lambda: self._folder.append(row))
            self._reporter.report(row)

    def begin(self) -> None:
        """Begin a run, or begin it again without the metrics of a previous attempt."""
        if rank() != 0:
            return
        was_interrupted = not self._keeps_faults and self._has_begun()
        self._write_metrics(lambda: self._folder.rewrite([]))
        if was_interrupted:
            self.note("restarted", "beginning again: there is no checkpoint", self._seconds_since_begun())

    def _has_begun(self) -> bool:
        """Return whether the run has trained before."""
        return self._folder.events.exists() or self._folder.metrics_jsonl.exists()

    def _seconds_since_begun(self) -> float:
        """Return the age of the configuration, which is written when the run begins, and never again."""
        return max(0.0, time.time() - self._folder.config.stat().st_mtime)

    def flush_metrics(self) -> None:
        """Write metrics that could not be written before; rank 0, at the end.

        Raises:
            ValueError: They still cannot be written.
        """
        if self._is_behind:
            self._write_metrics(lambda: self._folder.rewrite(self.rows))
        if self._is_behind:
            raise ValueError(
                f"cannot write metrics to {self._folder.path}: free some space, and run the same command again: "
                "the run continues from its end"
            )

    def _write_metrics(self, write: Callable[[], None]) -> None:
        """Write metrics, or report the failure and try again next time: checkpoints have them too."""
        was_behind = self._is_behind
        try:
            if was_behind:
                self._folder.rewrite(self.rows)
            else:
                write()
        except OSError as error:
            self._is_behind = True
            if not was_behind:
                self.note("metrics_failed", f"metrics cannot be written, the run continues: {error.strerror or error}")
            return
        self._is_behind = False
        if was_behind:
            self.note("metrics_failed", "metrics are written again")

    def go_on(self, snapshot: Snapshot) -> None:
        """Continue with the journal in a snapshot."""
        history = snapshot.facts
        self.rows = list(history.rows)
        self.epochs_done = history.epochs_done
        self.found_lr = history.found_lr
        if not self._keeps_faults:
            self.faults = history.faults
        self._num_skipped_reported = self.faults.num_skipped
        self.began = time.perf_counter() - history.seconds.run
        self.bad_images.add(BadImage(-1, name, reason) for name, reason in history.bad_images.items())
        for row in self.rows:
            self.spent += Spent(
                seconds=row.train_seconds or 0.0,
                data_seconds=row.data_seconds or 0.0,
                network_seconds=row.network_seconds or 0.0,
            )
            self._progress.validation_seconds = max(self._progress.validation_seconds, row.validation_seconds)
        self.gradients = history.gradients
        self.num_data_shards = history.order_workers or history.config.cluster.workers.most
        before = history.world_sizes or (history.world_size,)
        has_changed = before[-1] != world_size()
        self.world_sizes = (*before, world_size()) if has_changed else before
        if rank() == 0:
            has_begun = self._has_begun()
            self._write_metrics(lambda: self._folder.rewrite(self.rows))
            changed = f", on {world_size()} worker(s) after {before[-1]}" if has_changed else ""
            self._report_resumed(snapshot, has_begun, changed)

    def _report_resumed(self, snapshot: Snapshot, has_begun: bool, changed: str) -> None:
        """Report the checkpoint that the run continues from. A run that begins with another run's has lost nothing."""
        history, name = snapshot.facts, self._folder.path.name
        is_own = history.time is not None and history.config.output.name == name
        if not is_own and not has_begun:
            if (
                history.config.output.name != name
            ):  # a sweep's stages have the run's name, and are reported by the sweep
                self.report(Note(f"beginning with {snapshot.position.name} of another run{changed}"))
            return
        since_taken = max(0.0, time.time() - (history.time or 0.0))
        lost = since_taken if is_own else min(since_taken, self._seconds_since_begun())
        self.note("resumed", f"continuing from {snapshot.position.name}{changed}", lost)

    def report_step(self, epoch: Epoch, state: EpochState) -> None:
        """Report a step; every rank calls it after each step."""
        if rank() != 0:
            return
        self._progress.report(epoch, self.epochs_done, state)
        if self.faults.num_skipped == self._num_skipped_reported:
            return
        self._num_skipped_reported = self.faults.num_skipped
        where = f"stage {epoch.stage}, epoch {epoch.epoch}, step {state.step}"
        text = f"{where}: the loss or its gradient is not finite: skipped ({self.faults.num_skipped} so far)"
        self.note("step_skipped", text)

    def history(self, state: EpochState | None) -> History:
        """Return the history for a checkpoint; every rank calls it.

        Args:
            state: State of the current epoch; None = between two.
        """
        self.bad_images.agree()
        return History(
            epochs_done=self.epochs_done,
            rows=tuple(self.rows),
            bad_images=self.bad_images.reasons,
            seconds=Seconds(
                run=self.seconds,
                epoch=state.seconds if state else 0.0,
                data=state.data_seconds if state else 0.0,
            ),
            faults=dataclasses.replace(self.faults),
            time=time.time(),
            order_workers=self.num_data_shards,
            world_sizes=self.world_sizes,
            gradients=self.gradients,
            found_lr=self.found_lr,
        )

    def sums(self, state: EpochState | None) -> Tensor:
        """Return each rank's loss, hits and samples in the current epoch: float64 [ranks, 3].

        Every rank calls it.
        """
        sums = torch.zeros(world_size(), 3, dtype=torch.float64)
        if state is None:
            return sums
        sums[rank()] = state.sums.cpu()
        return sum_counts(sums)

    def summary(self) -> dict[str, object]:
        """Return the journal's part of summary.json; rank 0."""
        return {
            "num_bad_images": len(self.bad_images),
            "bad_images": self.bad_images.reasons,
            "num_skipped_steps": self.faults.num_skipped,
            "rewinds": list(self.faults.rewinds),
            "world_sizes": list(self.world_sizes),
            "found_lr": self.found_lr,
            "spent": {**dataclasses.asdict(self.spent), "bound_by": self.spent.bound},
            "events": self._log.summary(),
            "seconds": self.seconds,
        }
