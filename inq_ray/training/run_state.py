"""State of a run on one rank: network, start, journal and checkpoints, and how they are validated and saved."""

import math
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from inq_ray.core.moments import Moments
from inq_ray.distributed.digest import check_replicas
from inq_ray.distributed.replica import broadcast_tensors
from inq_ray.distributed.wire import rank, world_size
from inq_ray.files.shown import shown
from inq_ray.scheduler import INQScheduler
from inq_ray.training.calibration import gather_moments, quantize_at_once
from inq_ray.training.checkpoint.checkpoints import Checkpoints
from inq_ray.training.checkpoint.clock import StopError
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.restore import restore, restore_phase, sums_of_rank
from inq_ray.training.checkpoint.snapshot import SUMS, Parts, Snapshot, replicated
from inq_ray.training.config import RunConfig
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.evaluation.batchnorm import estimate_batchnorm
from inq_ray.training.evaluation.evaluate import validate
from inq_ray.training.journal import Journal
from inq_ray.training.loop.batches import TrainBatches
from inq_ray.training.loop.cuda_graph import graph_line
from inq_ray.training.loop.non_finite import DivergedError, Faults
from inq_ray.training.loop.trainer import EpochResult, EpochState
from inq_ray.training.report.events import Note, Reporter, Row, Saved
from inq_ray.training.report.progress import ProgressReporter
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.task.build import batchnorm_layers, build_task
from inq_ray.training.task.device_images import keep_on_gpu
from inq_ray.training.task.wrapping import unchanged_buffers


class RunState:
    """A run on one rank. Its methods are collective, except those that only return known values.

    Args:
        config: Configuration of the run.
        device: Device of this rank.
        reporter: Receives rank 0's events.
        folder: Folder of the run.
        fingerprint: Fingerprint that the data must have; None = any.
        rewound: Faults of a discarded attempt, whose last stage begins again; None = continue normally.
        is_asked_to_stop: Returns whether this rank was asked to stop.

    Attributes:
        config: Configuration of the run.
        task: Network and data.
        journal: Metrics, faults and times.
        checkpoints: Checkpoints of the run.
        start: Position from which the run continues; None = from its beginning.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        device: torch.device,
        reporter: Reporter,
        folder: RunFolder,
        fingerprint: str | None,
        rewound: Faults | None,
        is_asked_to_stop: Callable[[], bool],
    ) -> None:
        self.config = config
        self.task, where = keep_on_gpu(build_task(config, device, fingerprint=fingerprint))
        self.task.loader.start()
        progress = ProgressReporter(
            reporter,
            phases=config.phase_epochs,
            batch_size=config.training.batch_size,
            print_freq=config.output.print_freq,
        )
        self.journal = Journal(
            reporter,
            progress,
            folder,
            skip_bad_images=config.data.skip_bad_images,
            num_data_shards=config.cluster.workers.most,
            faults=rewound,
        )
        for line in (where, graph_line(config.training)):
            if line is not None and rank() == 0:
                self.journal.report(Note(line))
        self.checkpoints = Checkpoints(
            config, self.task.info.fingerprint, self.journal.note, is_asked_to_stop, folder.check_writer
        )
        self.start: TrainingPosition | None = None
        self._rewound = rewound
        self._snapshot: Snapshot | None = None

    def load(self) -> None:
        """Read the checkpoint to continue from, if there is one, and give every rank rank 0's network."""
        again = None if self._rewound is None else TrainingPosition(stage=self._rewound.rewinds[-1], epoch=0, step=0)
        self._snapshot = self.checkpoints.load(again)
        if self._snapshot is None:
            self.journal.begin()
        # Only rank 0 has read weights: from here on all have its network.
        broadcast_tensors(self.task.model.state_dict())

    def go_on(self) -> None:
        """Continue with the loaded checkpoint's journal.

        Raises:
            StopError: A rank was asked to stop already.
        """
        if self._snapshot is not None:
            self.start = self._snapshot.position
            self.journal.go_on(self._snapshot)
        if self.checkpoints.clock.look():
            raise StopError(self.start)

    def is_past(self, stage: int) -> bool:
        """Return whether the run continues from a later stage than this one."""
        return self.start is not None and stage < self.start.stage

    def position_in(self, stage: int) -> TrainingPosition | None:
        """Return the position to continue from within a stage; None = its beginning."""
        return self.start if self.start is not None and self.start.stage == stage else None

    def lr_of(self, stage: int) -> float:
        """Return the initial learning rate of a stage, the one that --lr-probe found if it is set."""
        found = self.journal.found_lr
        return self.config.lr_of(stage) if stage == 0 or found is None else found

    def restore(self, parts: Parts) -> None:
        """Load the checkpoint into objects of the run."""
        assert self._snapshot is not None
        restore(self._snapshot, parts)

    def restore_epoch(self, parts: Parts, position: TrainingPosition) -> EpochState | None:
        """Load what the checkpoint has of a phase: learning rates, schedule, loss scaler, averages, sums.

        Args:
            parts: Objects of the run, including those of the phase, after :meth:`restore`.
            position: Position from which the phase begins or continues.

        Returns:
            State of the epoch in which the run continues; None at the beginning of one.
        """
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is None or position != self.start or (position.epoch, position.step) == (0, 0):
            return None
        restore_phase(snapshot, parts)
        if position.step == 0:
            return None
        return EpochState(
            step=position.step,
            sums=sums_of_rank(snapshot.tensors[SUMS], rank(), world_size()).to(self.task.to_input.device),
            seconds=snapshot.facts.seconds.epoch,
            data_seconds=snapshot.facts.seconds.data,
        )

    def train_batches(self) -> TrainBatches:
        """Return the training batches."""
        return TrainBatches(
            task=self.task,
            training=self.config.training,
            bad_images=self.journal.bad_images,
            shuffle_buffer=self.config.data.shuffle_buffer,
            num_data_shards=self.journal.num_data_shards,
        )

    def estimate_batchnorm(self, stage: int) -> None:
        """Estimate BatchNorm's statistics after the last stage, if --bn-images is set.

        This happens before validation and checkpoint, so that metrics, checkpoint and result have the same network, and
        a run that continues from the stage's end does not repeat it.
        """
        is_last = not self.config.plain and stage == len(self.config.quantization.iterative_steps)
        if not (self.config.training.bn_images and is_last and batchnorm_layers(self.task.model)):
            return
        num_images = estimate_batchnorm(self.train_batches(), self.journal.epochs_done, self.config.training.bn_images)
        if rank() == 0:
            self.journal.report(Note(f"BatchNorm statistics are estimated from {num_images:,} training images"))

    def quantize_at_once(self, inq: INQScheduler) -> None:
        """Quantize all weights without training, the only stage of --post-training; identical on every rank.

        Args:
            inq: The scheduler, before its first stage.
        """
        quantization = self.config.quantization
        done = quantize_at_once(
            self.train_batches(),
            inq,
            epoch=self.journal.epochs_done,
            num_images=quantization.calibration_images,
            keep_zeros=quantization.keep_zeros,
        )
        if done is not None:
            self.journal.report(Note(f"{done.num_images:,} training images were used for quantization, without labels"))
            self._report_left_out(done.left_out)

    def _report_left_out(self, left_out: Mapping[str, str]) -> None:
        for name, reason in left_out.items():
            self.journal.report(Note(f"{shown(name)} {reason}: it is quantized without compensation"))

    def gather_moments(self, params: Mapping[str, Tensor]) -> Moments | None:
        """Return moments of layers' inputs for the next stage with --compensate, else None.

        Args:
            params: Parameters that are quantized, by name.
        """
        quantization = self.config.quantization
        if not quantization.compensate:
            return None
        epoch, num_images = self.journal.epochs_done, quantization.calibration_images
        moments = gather_moments(self.train_batches(), epoch, num_images, params)
        if rank() == 0:
            self._report_left_out(moments.left_out)
        return moments

    def validate_before_training(self, *, stage: int, portion: float) -> Accuracy:
        """Measure and report accuracy right after quantizing, before re-training; see :meth:`validate`.

        BatchNorm's statistics are those of the weights before, and training soon brings them up to date. For this
        measurement alone they are estimated from --calibration-images of rank 0 (with --sync-batchnorm, of all ranks).
        """
        if not batchnorm_layers(self.task.model):
            return self.validate(stage=stage, portion=portion, num_bn_images=0)
        num_shards = 1 if self.config.training.sync_batchnorm else world_size()
        num_images = num_shards * self.config.quantization.calibration_images
        with unchanged_buffers(self.task.model):
            num_images = estimate_batchnorm(self.train_batches(), self.journal.epochs_done, num_images)
            return self.validate(stage=stage, portion=portion, num_bn_images=num_images)

    def validate(
        self,
        *,
        stage: int,
        portion: float,
        epoch: int = 0,
        lr: float | None = None,
        result: EpochResult | None = None,
        num_bn_images: int | None = None,
    ) -> Accuracy:
        """Measure accuracy and report it; every rank has rank 0's BatchNorm statistics afterwards.

        Args:
            stage: 0 during float training, else from 1.
            portion: Accumulated fraction of frozen weights.
            epoch: Epoch of the phase that ended, from 1; 0 = before its training.
            lr: Initial learning rate of the epoch.
            result: Result of the epoch.
            num_bn_images: See :class:`Row`.

        Raises:
            DivergedError: Training ended with a loss that is not finite; raised on every rank.
        """
        broadcast_tensors(dict(self.task.model.named_buffers()))
        journal, began = self.journal, time.perf_counter()
        accuracy = validate(
            self.task,
            journal.bad_images,
            limit_batches=self.config.training.limit_batches,
            checks_order=stage == 0 and epoch == 0,
        )
        if epoch and not math.isfinite(accuracy.loss):
            raise DivergedError(
                stage,
                f"the validation loss after epoch {journal.epochs_done} is {accuracy.loss}",
                "lower --lr, or increase --warmup-epochs",
            )
        row = Row(
            stage=stage,
            portion=portion,
            epoch=epoch,
            top1=accuracy.top1,
            top5=accuracy.top5,
            loss=accuracy.loss,
            validation_seconds=time.perf_counter() - began,
            lr=lr,
            num_bad_images=len(journal.bad_images),
            num_skipped_steps=journal.faults.num_skipped,
            num_bn_images=num_bn_images,
            **(result.figures() if result else {}),
        )
        journal.add(row)
        return accuracy

    def save(
        self,
        parts: Parts,
        position: TrainingPosition,
        *,
        state: EpochState | None = None,
        is_stage_end: bool = False,
        is_last: bool = False,
        top1: float | None = None,
    ) -> None:
        """Take a checkpoint, which rank 0 writes.

        Args:
            parts: Objects of the run.
            position: Current position.
            state: State of the current epoch; None = between two.
            is_stage_end: Whether a stage begins or ends here.
            is_last: Whether the run stops here.
            top1: Accuracy in percent measured here.

        Raises:
            ReplicaMismatchError: Ranks differ; nothing is written, so that the last checkpoint is valid. Raised on
                every rank.
            StopError: The run stops here; raised on every rank.
        """
        began = time.perf_counter()
        self.check_replicas(parts, has_buffers=is_stage_end)
        is_taken = self.checkpoints.save(
            parts,
            self.journal.history(state),
            self.journal.sums(state),
            position,
            is_stage_end=is_stage_end,
            top1=top1,
            must_be_written=is_stage_end or is_last,
        )
        if rank() == 0 and is_taken:
            self.journal.report(Saved(name=position.name, seconds=time.perf_counter() - began))
        if is_last:
            self._stop()

    def save_stage_end(self, parts: Parts, position: TrainingPosition, top1: float | None) -> None:
        """Take a checkpoint at one of a stage's two ends, and stop there if a rank was asked to; see :meth:`save`."""
        self.save(parts, position, is_stage_end=True, top1=top1)
        if self.checkpoints.clock.look():
            self._stop()

    def check_replicas(self, parts: Parts, *, has_buffers: bool) -> None:
        """Compare the tensors that must be equal on every rank.

        Args:
            parts: Objects of the run.
            has_buffers: Whether buffers are compared too, which differ during a phase.

        Raises:
            ReplicaMismatchError: The ranks do not have the same bits; raised on every rank.
        """
        stage = parts.inq.stage if parts.inq else None
        tensors = replicated(parts, has_buffers=has_buffers)
        check_replicas(tensors, stage=stage, what="weights, buffers, momentum, masks or codes")

    def _stop(self) -> None:
        self.checkpoints.close()
        error = StopError(self.checkpoints.last)
        if rank() == 0:
            self.journal.note("stopped", str(error))
        raise error
