"""One run from start to end: float training where asked for, the stages, the result and its proof."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.digest import check_replicas
from inq_ray.distributed.replica import broadcast_tensors
from inq_ray.distributed.wire import rank, world_size
from inq_ray.models.selection import named_parameters, param_groups
from inq_ray.scheduler import INQScheduler
from inq_ray.training.checkpoint.checkpoints import Checkpoints
from inq_ray.training.checkpoint.clock import StopError
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.restore import restore, sums_of_rank
from inq_ray.training.checkpoint.snapshot import SUMS, Parts, Snapshot, replicated
from inq_ray.training.config import RunConfig
from inq_ray.training.evaluation.batchnorm import estimate_batchnorm
from inq_ray.training.evaluation.evaluate import validate
from inq_ray.training.finish import finish
from inq_ray.training.journal import Journal
from inq_ray.training.loop.build import make_trainer, precision_of, sgd_options
from inq_ray.training.loop.non_finite import MOST_REWINDS, DivergedError, Faults
from inq_ray.training.loop.trainer import EpochResult, EpochState, Trainer
from inq_ray.training.report.events import Note, Reporter, Row, Saved, Started
from inq_ray.training.report.progress import Phase
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.task.build import batchnorm_layers, build_task
from inq_ray.training.task.determinism import set_deterministic
from inq_ray.training.task.distill import Teacher, make_teacher


def _never() -> bool:
    return False


def run(
    config: RunConfig,
    *,
    device: torch.device,
    reporter: Reporter,
    folder: RunFolder,
    fingerprint: str | None = None,
    is_asked_to_stop: Callable[[], bool] = _never,
) -> dict[str, Any]:
    """Trains and quantizes; every rank calls it, rank 0 reports and writes.

    Args:
        config: checked by :func:`inq_ray.training.task.build.check`.
        device: of this rank.
        reporter: takes rank 0's events.
        folder: of the run, made before.
        fingerprint: what the data must be, where that is known.
        is_asked_to_stop: whether this rank has been; answers at once, and is asked about once a second while training.

    Returns:
        The summary, the same on every rank but for times.

    Raises:
        ValueError: data or weights are not there on this machine.
        ReplicaMismatchError: the ranks no longer hold the same bits.
        DivergedError: a loss or its gradient is not finite, and --on-nan stops there.
        StopError: on every rank, once one was asked to stop; a checkpoint is written.
        VerificationError: the written files are not what they should be.
    """
    set_deterministic()
    rewound: Faults | None = None
    while True:
        attempt = Run(config, device, reporter, folder, fingerprint, rewound, is_asked_to_stop)
        try:
            return attempt.execute()
        except DivergedError as error:
            if config.training.on_nan != "rewind":
                raise
            rewound = attempt.rewind(error)
        del attempt  # the next one needs its memory


class Run:
    """State of a run on one rank: the network, where it is, and what it remembers.

    Args:
        rewound: what is remembered of an attempt that was given up; its last stage begins again. None = go on.
        is_asked_to_stop: whether this rank has been.
    """

    def __init__(
        self,
        config: RunConfig,
        device: torch.device,
        reporter: Reporter,
        folder: RunFolder,
        fingerprint: str | None = None,
        rewound: Faults | None = None,
        is_asked_to_stop: Callable[[], bool] = _never,
    ) -> None:
        self.config = config
        self.folder = folder
        self.task = build_task(config, device, fingerprint=fingerprint)
        self.task.loader.start()
        self._untrained = {name for name, param in named_parameters(self.task.model) if not param.requires_grad}
        self.journal = Journal(config, reporter, folder, rewound)
        self.checkpoints = Checkpoints(config, self.task.info.fingerprint, self.journal.note, is_asked_to_stop)
        self.stage = 0
        self._teacher: Teacher | None = None
        self._is_rewound = rewound is not None
        self._start: TrainingPosition | None = None
        self._snapshot: Snapshot | None = None
        self._is_due = False

    def execute(self) -> dict[str, Any]:
        """The whole run, from its last checkpoint where there is one; returns the summary."""
        config, journal = self.config, self.journal
        again = TrainingPosition(stage=journal.faults.rewinds[-1], epoch=0, step=0) if self._is_rewound else None
        self._snapshot = self.checkpoints.load(again)
        if self._snapshot is None:
            journal.begin()
        # The first thing that ranks agree on: from here on rank 0's network is everybody's.
        broadcast_tensors(self.task.model.state_dict())
        groups = param_groups(
            self.task.model, None if config.plain else config.quantization.weight_bits, skip=config.quantization.skip
        )
        self._report_start(groups)
        if self._snapshot is not None:
            self._start = self._snapshot.position
            journal.go_on(self._snapshot)
        if self.checkpoints.clock.look():
            raise StopError(self._start)
        if self._start is None and config.network.weights is not None:
            self._validate(stage=0, portion=0.0)
        if config.float_epochs and self._starts_at(0):
            self._train_float(config.float_epochs)
        scheduler = None if config.plain else self._run_stages(groups)
        digest = self._check_replicas(Parts(model=self.task.model, inq=scheduler), has_buffers=True)
        self.checkpoints.close()
        return finish(config, self.task, scheduler, self.journal, self.folder, digest)

    def rewind(self, error: DivergedError) -> Faults:
        """Gives this attempt up; every rank calls it. The next one begins the stage again, at half its learning rate.

        Not from the last checkpoint: those that --checkpoint-every asks for are where a watch, or the storage, has put
        them. From the stage's start a run ends with the same bits whether or not it is interrupted too. The same rate
        would end in the same fault.

        Returns:
            What the next attempt has to remember.

        Raises:
            DivergedError: the stage has begun again too often.
        """
        self.checkpoints.close()
        before = self.journal.faults
        num_rewinds = before.rewinds.count(self.stage)
        if num_rewinds == MOST_REWINDS:
            raise DivergedError(f"{error} (stage {self.stage} began again {num_rewinds} times)") from error
        faults = dataclasses.replace(before, in_a_row=0, rewinds=(*before.rewinds, self.stage))
        if rank() == 0:
            what = str(error).partition(": lower")[0]
            times = f"{num_rewinds + 1} of {MOST_REWINDS}"
            rate = f"{faults.lr_factor(self.stage):g} of its learning rate"
            self.journal.note("stage_rewound", f"{what}: stage {self.stage} begins again at {rate} ({times})")
        return faults

    def _starts_at(self, stage: int) -> bool:
        """Whether there is anything to do in a stage."""
        return self._start is None or stage >= self._start.stage

    def _place_in(self, stage: int) -> TrainingPosition | None:
        """Where the run goes on within a stage; None = at its beginning."""
        if self._start is None or self._start.stage != stage:
            return None
        return self._start

    def _train_float(self, epochs: int) -> None:
        optimizer = SGD(self.task.model.parameters(), lr=self.config.lr_of(0), **sgd_options(self.config.training))
        if self._place_in(0) is not None:
            self._restore(Parts(model=self.task.model, optimizer=optimizer))
        self._train(optimizer, None, epochs, stage=0, portion=0.0)

    def _run_stages(self, groups: list[dict[str, Any]]) -> INQScheduler:
        config, model = self.config, self.task.model
        optimizer = SGD(groups, lr=config.lr_of(1), **sgd_options(config.training))
        quantization = config.quantization
        portions = quantization.iterative_steps
        inq = INQScheduler(
            optimizer, portions, quantization.strategy, config.training.seed, codebook=quantization.codebook
        )
        self._teacher = make_teacher(config, model)  # of the network as it is before the first stage
        parts = Parts(model=model, optimizer=optimizer, inq=inq, teacher=self._teacher_model())
        if self._start is not None and self._start.stage > 0:
            self._restore(parts)
        for stage, (portion, epochs) in enumerate(zip(portions, config.stage_epochs, strict=True), start=1):
            if not self._starts_at(stage):
                continue
            is_new = self._place_in(stage) is None
            if is_new:
                broadcast_tensors(dict(model.named_buffers()))
                inq.step()
            self._stop_gradients_of_frozen(inq)
            has_live = any(param.requires_grad for param in model.parameters())
            if is_new:
                if not (epochs and has_live):
                    self._estimate_batchnorm(stage)
                row = self._validate(stage=stage, portion=portion)
                self._save(parts, TrainingPosition(stage=stage, epoch=0, step=0), is_stage_end=True, top1=row.top1)
                self._stop_if_asked()
            if has_live:
                self._train(optimizer, inq, epochs, stage=stage, portion=portion)
        return inq

    def _train(self, optimizer: SGD, inq: INQScheduler | None, epochs: int, *, stage: int, portion: float) -> None:
        """Trains the epochs of a phase, or those that are left of them."""
        self.stage = stage
        place = self._place_in(stage) or TrainingPosition(stage=stage, epoch=0, step=0)
        if place.epoch >= epochs:
            return
        trainer = make_trainer(
            self.config,
            self.task,
            optimizer,
            stage=stage,
            epochs=epochs,
            faults=self.journal.faults,
            bad_images=self.journal.bad_images,
            order_workers=self.journal.order_workers,
            teacher=self._teacher,
        )
        trainer.settle()
        state = self._restore_phase(trainer, inq, place)
        for epoch in range(place.epoch + 1, epochs + 1):
            lr = trainer.scheduler.base_lrs[0] * trainer.scheduler.lr_lambdas[0]((epoch - 1) * trainer.num_steps)
            phase = Phase(stage=stage, portion=portion, epoch=epoch, epochs=epochs, steps=trainer.num_steps)
            on_step = functools.partial(self._on_step, trainer, inq, phase)
            result = trainer.train_epoch(self.journal.epochs_done, on_step, state)
            state = None
            self.journal.epochs_done += 1
            self.journal.spent += result.spent
            is_end = epoch == epochs
            if is_end:
                if trainer.ema is not None:
                    trainer.ema.store()
                self._estimate_batchnorm(stage)
            with contextlib.nullcontext() if trainer.ema is None or is_end else trainer.ema.swapped():
                row = self._validate(stage=stage, portion=portion, epoch=epoch, lr=float(lr), result=result)
            if is_end:
                self._is_due = False  # the stage's end is saved in any case
                break
            is_asked = self.checkpoints.clock.look()
            if self._is_due or is_asked:
                self._is_due = False
                place = TrainingPosition(stage=stage, epoch=epoch, step=0)
                self._save(self._parts(trainer, inq), place, top1=row.top1, is_last=is_asked)
        parts = Parts(model=self.task.model, optimizer=optimizer, inq=inq, teacher=self._teacher_model())
        end = TrainingPosition(stage=stage, epoch=epochs, step=0)
        self._save(parts, end, is_stage_end=True, top1=self.journal.rows[-1].top1)
        self._stop_if_asked()

    def _estimate_batchnorm(self, stage: int) -> None:
        """To be called by every rank where a stage's training is done, before what is left is validated and kept.

        Before that, not after: so metrics, checkpoint and result are of one network, and a run that goes on from the
        stage's end has nothing to do again.
        """
        is_last = not self.config.plain and stage == len(self.config.quantization.iterative_steps)
        if not (self.config.training.bn_images and is_last and batchnorm_layers(self.task.model)):
            return
        num_images = estimate_batchnorm(
            self.config,
            self.task,
            epoch=self.journal.epochs_done,
            order_workers=self.journal.order_workers,
            bad_images=self.journal.bad_images,
        )
        if rank() == 0:
            self.journal.tell(Note(f"BatchNorm's statistics are estimated anew from {num_images:,} training images"))

    def _restore(self, parts: Parts) -> None:
        assert self._snapshot is not None
        restore(self._snapshot, parts)

    def _restore_phase(self, trainer: Trainer, inq: INQScheduler | None, place: TrainingPosition) -> EpochState | None:
        """Puts the trainer where the run goes on; returns where its epoch does, None = at its beginning."""
        snapshot, self._snapshot = self._snapshot, None  # as large as the network several times over
        if snapshot is None or place != self._start or (place.epoch, place.step) == (0, 0):
            return None
        restore(snapshot, self._parts(trainer, inq))
        if place.step == 0:
            return None
        return EpochState(
            step=place.step,
            sums=sums_of_rank(snapshot.tensors[SUMS], rank(), world_size()).to(self.task.to_input.device),
            seconds=snapshot.facts.seconds.epoch,
            data_seconds=snapshot.facts.seconds.data,
        )

    def _on_step(self, trainer: Trainer, inq: INQScheduler | None, phase: Phase, state: EpochState) -> None:
        self.journal.tell_step(phase, state)
        look = self.checkpoints.clock.tick()
        if look.is_due and state.step == phase.steps:
            self._is_due = True  # after the epoch's validation
        if look.is_asked or (look.is_due and state.step < phase.steps):
            trainer.check()
            place = TrainingPosition(stage=phase.stage, epoch=phase.epoch - 1, step=state.step)
            self._save(self._parts(trainer, inq), place, state=state, is_last=look.is_asked)

    def _parts(self, trainer: Trainer, inq: INQScheduler | None) -> Parts:
        return Parts(
            model=self.task.model,
            optimizer=trainer.optimizer,
            inq=inq,
            lr_scheduler=trainer.scheduler,
            scaler=trainer.scaler,
            ema=trainer.ema,
            teacher=self._teacher_model(),
        )

    def _teacher_model(self) -> nn.Module | None:
        return None if self._teacher is None else self._teacher.model

    def _save(
        self,
        parts: Parts,
        place: TrainingPosition,
        *,
        state: EpochState | None = None,
        is_stage_end: bool = False,
        is_last: bool = False,
        top1: float | None = None,
    ) -> None:
        """Takes a checkpoint; every rank calls it, rank 0 writes.

        Raises:
            ReplicaMismatchError: on every rank; nothing is written, so that the last checkpoint is a good one.
            StopError: where it is the last one.
        """
        began = time.perf_counter()
        self._check_replicas(parts, has_buffers=is_stage_end)
        history, sums = self.journal.history(state), self.journal.sums(state)
        must_be_written = is_stage_end or is_last
        is_taken = self.checkpoints.save(
            parts, history, sums, place, is_stage_end=is_stage_end, top1=top1, must_be_written=must_be_written
        )
        if rank() == 0 and is_taken:
            self.journal.tell(Saved(name=place.name, seconds=time.perf_counter() - began))
        if is_last:
            self._stop()

    def _stop_if_asked(self) -> None:
        """To be called by every rank after a stage's end was saved."""
        if self.checkpoints.clock.look():
            self._stop()

    def _stop(self) -> None:
        self.checkpoints.close()
        error = StopError(self.checkpoints.last)
        if rank() == 0:
            self.journal.note("stopped", str(error))
        raise error

    def _stop_gradients_of_frozen(self, inq: INQScheduler) -> None:
        """A tensor without live weights needs no gradient: none is computed, none travels; nor one never trained."""
        for name, param in inq.quantized().items():
            param.requires_grad_(name not in self._untrained and not bool(inq.state[name].frozen.all()))

    def _validate(
        self,
        *,
        stage: int,
        portion: float,
        epoch: int = 0,
        lr: float | None = None,
        result: EpochResult | None = None,
    ) -> Row:
        """Measures accuracy and tells it; rank 0's BatchNorm statistics are everybody's from here on.

        Raises:
            DivergedError: on every rank, where training has ended in a network whose loss is not finite.
        """
        broadcast_tensors(dict(self.task.model.named_buffers()))
        journal, began = self.journal, time.perf_counter()
        accuracy = validate(self.task, self.config, journal.bad_images)
        if epoch and not math.isfinite(accuracy.loss):
            raise DivergedError(
                f"the validation loss after epoch {journal.epochs_done} is {accuracy.loss}: lower --lr, or warm up "
                "longer"
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
            **(result.figures() if result else {}),
        )
        journal.add(row)
        return row

    def _check_replicas(self, parts: Parts, *, has_buffers: bool) -> str:
        """Every rank must hold the same bits; returns their digest."""
        stage = parts.inq.stage if parts.inq else None
        tensors = replicated(parts, has_buffers=has_buffers)
        return check_replicas(tensors, stage=stage, what="weights, buffers, momentum, masks or codes")

    def _report_start(self, groups: list[dict[str, Any]]) -> None:
        if rank() != 0:
            return
        params: list[tuple[nn.Parameter, bool]] = [
            (param, group["weight_bits"] is not None) for group in groups for _, param in group["params"]
        ]
        self.journal.tell(
            Started(
                arch=self.config.network.arch,
                num_parameters=sum(param.numel() for param, _ in params),
                num_quantized=sum(param.numel() for param, is_quantized in params if is_quantized),
                num_train=len(self.task.train_indices),
                num_validation=len(self.task.validation_indices),
                world_size=world_size(),
                device=str(self.task.to_input.device),
                precision=precision_of(self.config, self.task.to_input.device),
            )
        )
