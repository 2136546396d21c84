"""One run from start to end: float training where asked for, the stages, the result and its proof."""

import contextlib
import dataclasses
import functools
import math
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from inq_ray import __version__
from inq_ray.core.sgd import SGD
from inq_ray.data.batch_mix import BatchMix
from inq_ray.data.image_set import BadImage
from inq_ray.data.loader import eval_requests, steps_per_epoch
from inq_ray.distributed.digest import check_replicas, state_tensors
from inq_ray.distributed.replica import broadcast_tensors, rank, sum_counts, world_size
from inq_ray.export.files import write_result
from inq_ray.export.verify import verify
from inq_ray.models.selection import param_groups
from inq_ray.scheduler import INQScheduler
from inq_ray.training.accuracy import Accuracy
from inq_ray.training.bad_images import BadImages
from inq_ray.training.bottleneck import Spent
from inq_ray.training.build import Task, build_task
from inq_ray.training.checkpoint.keeper import Checkpoints
from inq_ray.training.checkpoint.place import Place
from inq_ray.training.checkpoint.snapshot import History, Parts, Snapshot, history_of, restore, sums_of_rank
from inq_ray.training.config import RunConfig
from inq_ray.training.ema import Ema
from inq_ray.training.evaluate import evaluate
from inq_ray.training.faults import MOST_REWINDS, DivergedError, Faults
from inq_ray.training.loop import EpochResult, EpochState, Trainer
from inq_ray.training.lr_schedule import lr_factor
from inq_ray.training.progress import Phase, ProgressTeller
from inq_ray.training.reporter import Note, Reporter, Row, Started
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.summary import summarize
from inq_ray.training.wrapping import wrap


def run(
    config: RunConfig,
    *,
    device: torch.device,
    reporter: Reporter,
    folder: RunFolder,
    fingerprint: str | None = None,
) -> dict[str, Any]:
    """Trains and quantizes; every rank calls it, rank 0 reports and writes.

    Args:
        config: checked by :func:`inq_ray.training.build.check`.
        device: of this rank.
        reporter: takes rank 0's events.
        folder: of the run, made before.
        fingerprint: what the data must be, where that is known.

    Returns:
        The summary, the same on every rank but for times.

    Raises:
        ValueError: data or weights are not there on this machine.
        ReplicaMismatchError: the ranks no longer hold the same bits.
        DivergedError: a loss or its gradient is not finite, and --on-nan stops there.
        VerificationError: the written files are not what they should be.
    """
    set_deterministic()
    rewound: Faults | None = None
    while True:
        attempt = Run(config, device, reporter, folder, fingerprint, rewound)
        try:
            return attempt.execute()
        except DivergedError as error:
            if config.training.on_nan != "rewind":
                raise
            rewound = attempt.rewind(error)
        del attempt  # the next one needs its memory


def evaluate_only(config: RunConfig, *, device: torch.device, fingerprint: str | None = None) -> Accuracy:
    """Accuracy of the network as it is; every rank calls it."""
    set_deterministic()
    task = build_task(config, device, evaluate=True, fingerprint=fingerprint)
    broadcast_tensors(task.model.state_dict())
    return _validate(task, config, BadImages(config.data.skip_bad_images))


def set_deterministic() -> None:
    """The same numbers in, the same bits out, on one kind of machine."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32: what is measured is what the files hold
    torch.use_deterministic_algorithms(True, warn_only=True)


class Run:
    """State of a run on one rank: the network, where it is, and the rows so far.

    Args:
        rewound: what is remembered of an attempt that was given up; its last stage begins again. None = go on.
    """

    def __init__(
        self,
        config: RunConfig,
        device: torch.device,
        reporter: Reporter,
        folder: RunFolder,
        fingerprint: str | None = None,
        rewound: Faults | None = None,
    ) -> None:
        self.config = config
        self.reporter = reporter
        self.folder = folder
        self.task = build_task(config, device, fingerprint=fingerprint)
        self.task.loader.start()
        self.rows: list[Row] = []
        self.began = time.perf_counter()
        self.epochs_done = 0
        self.spent = Spent()
        self.bad_images = BadImages(config.data.skip_bad_images)
        precision = config.training.precision
        if precision == "auto":
            precision = "bf16" if device.type == "cuda" else "float32"
        self.precision = precision
        self.teller = ProgressTeller(config, reporter)
        self.checkpoints = Checkpoints(config, self.task.info.fingerprint, lambda text: reporter.report(Note(text)))
        self.start: Snapshot | None = None
        self.stage = 0
        self.faults = rewound or Faults()
        self._is_rewound = rewound is not None
        self._is_due = False
        self._num_skipped_told = 0

    def execute(self) -> dict[str, Any]:
        """The whole run, from its last checkpoint where there is one; returns the summary."""
        config = self.config
        again = Place(stage=self.faults.rewinds[-1], epoch=0, step=0) if self._is_rewound else None
        self.start = self.checkpoints.load(again)
        if self._is_rewound and rank() == 0:
            self.folder.rewrite([])
        # The first thing that ranks agree on: from here on rank 0's network is everybody's.
        broadcast_tensors(self.task.model.state_dict())
        groups = param_groups(
            self.task.model, None if config.plain else config.quantization.weight_bits, skip=config.quantization.skip
        )
        self._report_start(groups)
        if self.start is not None:
            self._remember(history_of(self.start))
        elif config.network.weights is not None:
            self._validate(stage=0, portion=0.0)
        if config.float_epochs and self._starts_at(0):
            self._train_float(config.float_epochs)
        scheduler = None if config.plain else self._run_stages(groups)
        return self._finish(scheduler)

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
        num_rewinds = self.faults.rewinds.count(self.stage)
        if num_rewinds == MOST_REWINDS:
            raise DivergedError(f"{error} (stage {self.stage} began again {num_rewinds} times)") from error
        faults = dataclasses.replace(self.faults, in_a_row=0, rewinds=(*self.faults.rewinds, self.stage))
        if rank() == 0:
            what = str(error).partition(": lower")[0]
            times = f"{num_rewinds + 1} of {MOST_REWINDS}"
            rate = f"{faults.lr_factor(self.stage):g} of its learning rate"
            self.reporter.report(Note(f"{what}: stage {self.stage} begins again at {rate} ({times})"))
        return faults

    def _remember(self, history: History) -> None:
        """Goes on with the metrics of the run so far."""
        self.rows = list(history.rows)
        self.epochs_done = history.epochs_done
        if not self._is_rewound:
            self.faults = history.faults
        self._num_skipped_told = self.faults.num_skipped
        self.began = time.perf_counter() - history.seconds
        self.bad_images.add(BadImage(-1, name, reason) for name, reason in history.bad_images.items())
        for row in self.rows:
            self.spent += Spent(
                seconds=row.train_seconds or 0.0,
                data_seconds=row.data_seconds or 0.0,
                network_seconds=row.network_seconds or 0.0,
            )
            self.teller.validation_seconds = max(self.teller.validation_seconds, row.validation_seconds)
        if rank() == 0:
            self.folder.rewrite(self.rows)

    def _starts_at(self, stage: int) -> bool:
        """Whether there is anything to do in a stage."""
        return self.start is None or stage >= self.start.place.stage

    def _place_in(self, stage: int) -> Place | None:
        """Where the run goes on within a stage; None = at its beginning."""
        if self.start is None or self.start.place.stage != stage:
            return None
        return self.start.place

    def _train_float(self, epochs: int) -> None:
        training = self.config.training
        lr = training.lr if self.config.plain else training.float_lr
        optimizer = SGD(self.task.model.parameters(), lr=lr, **self._sgd_options())
        if self._place_in(0) is not None:
            assert self.start is not None
            restore(self.start, Parts(model=self.task.model, optimizer=optimizer))
        self._train(optimizer, None, epochs, stage=0, portion=0.0)

    def _run_stages(self, groups: list[dict[str, Any]]) -> INQScheduler:
        config, model = self.config, self.task.model
        optimizer = SGD(groups, lr=config.training.lr, **self._sgd_options())
        portions = config.quantization.iterative_steps
        inq = INQScheduler(optimizer, portions, config.quantization.strategy, config.training.seed)
        if self.start is not None and self.start.place.stage > 0:
            restore(self.start, Parts(model=model, optimizer=optimizer, inq=inq))
        for stage, (portion, epochs) in enumerate(zip(portions, config.stage_epochs, strict=True), start=1):
            if not self._starts_at(stage):
                continue
            if self._place_in(stage) is None:
                broadcast_tensors(dict(model.named_buffers()))
                inq.step()
                row = self._validate(stage=stage, portion=portion)
                parts = Parts(model=model, optimizer=optimizer, inq=inq)
                self._save(parts, Place(stage=stage, epoch=0, step=0), is_stage_end=True, top1=row.top1)
            self._stop_gradients_of_frozen(inq)
            if any(param.requires_grad for param in model.parameters()):
                self._train(optimizer, inq, epochs, stage=stage, portion=portion)
        return inq

    def _train(self, optimizer: SGD, inq: INQScheduler | None, epochs: int, *, stage: int, portion: float) -> None:
        """Trains the epochs of a phase, or those that are left of them."""
        self.stage = stage
        place = self._place_in(stage) or Place(stage=stage, epoch=0, step=0)
        if place.epoch >= epochs:
            return
        lr_scheduler = self._lr_scheduler(optimizer, epochs)
        trainer = self._trainer(optimizer, lr_scheduler)
        trainer.settle()
        state = self._restore_phase(trainer, inq, place)
        for epoch in range(place.epoch + 1, epochs + 1):
            lr = lr_scheduler.base_lrs[0] * lr_scheduler.lr_lambdas[0]((epoch - 1) * trainer.num_steps)
            phase = Phase(stage=stage, portion=portion, epoch=epoch, epochs=epochs, steps=trainer.num_steps)
            on_step = functools.partial(self._on_step, trainer, inq, phase)
            result = trainer.train_epoch(self.epochs_done, on_step, state)
            state = None
            self.epochs_done += 1
            self.spent += result.spent
            with contextlib.nullcontext() if trainer.ema is None else trainer.ema.swapped():
                row = self._validate(stage=stage, portion=portion, epoch=epoch, lr=float(lr), result=result)
            self.teller.validation_seconds = max(self.teller.validation_seconds, row.validation_seconds)
            if epoch < epochs and self._is_due:
                self._is_due = False
                self._save(self._parts(trainer, inq), Place(stage=stage, epoch=epoch, step=0), top1=row.top1)
        if trainer.ema is not None:
            trainer.ema.store()
        self._check_replicas(inq)
        parts = Parts(model=self.task.model, optimizer=optimizer, inq=inq)
        end = Place(stage=stage, epoch=epochs, step=0)
        self._save(parts, end, is_stage_end=True, top1=self.rows[-1].top1)

    def _restore_phase(self, trainer: Trainer, inq: INQScheduler | None, place: Place) -> EpochState | None:
        """Puts the trainer where the run goes on; returns where its epoch does, None = at its beginning."""
        if self.start is None or place != self.start.place or (place.epoch, place.step) == (0, 0):
            return None
        restore(self.start, self._parts(trainer, inq))
        if place.step == 0:
            return None
        history = history_of(self.start)
        return EpochState(
            step=place.step,
            sums=sums_of_rank(history.sums, rank(), world_size()).to(self.task.to_input.device),
            seconds=history.epoch_seconds,
            data_seconds=history.data_seconds,
        )

    def _on_step(self, trainer: Trainer, inq: INQScheduler | None, phase: Phase, state: EpochState) -> None:
        if rank() == 0:
            self.teller.tell(phase, self.epochs_done, state)
            self._tell_skipped(phase, state)
        if not self.checkpoints.clock.is_due():
            return
        if state.step == phase.steps:
            self._is_due = True  # after the epoch's validation
            return
        trainer.check()
        place = Place(stage=phase.stage, epoch=phase.epoch - 1, step=state.step)
        self._save(self._parts(trainer, inq), place, state=state)

    def _tell_skipped(self, phase: Phase, state: EpochState) -> None:
        if self.faults.num_skipped == self._num_skipped_told:
            return
        self._num_skipped_told = self.faults.num_skipped
        where = f"stage {phase.stage}, epoch {phase.epoch}, step {state.step}"
        self.reporter.report(
            Note(f"{where}: the loss or its gradient is not finite: skipped ({self.faults.num_skipped} so far)")
        )

    def _parts(self, trainer: Trainer, inq: INQScheduler | None) -> Parts:
        return Parts(
            model=self.task.model,
            optimizer=trainer.optimizer,
            inq=inq,
            lr_scheduler=trainer.scheduler,
            scaler=trainer.scaler,
            ema=trainer.ema,
        )

    def _save(
        self,
        parts: Parts,
        place: Place,
        *,
        state: EpochState | None = None,
        is_stage_end: bool = False,
        top1: float | None = None,
    ) -> None:
        """Takes a checkpoint; every rank calls it, rank 0 writes."""
        self.bad_images.agree()
        sums = torch.zeros(world_size(), 3, dtype=torch.float64)
        if state is not None:
            sums[rank()] = state.sums.cpu()
            sums = sum_counts(sums)
        history = History(
            epochs_done=self.epochs_done,
            rows=tuple(self.rows),
            bad_images=self.bad_images.reasons,
            sums=sums,
            epoch_seconds=state.seconds if state else 0.0,
            data_seconds=state.data_seconds if state else 0.0,
            seconds=time.perf_counter() - self.began,
            faults=dataclasses.replace(self.faults),
        )
        self.checkpoints.save(parts, history, place, is_stage_end=is_stage_end, top1=top1)

    def _trainer(self, optimizer: SGD, lr_scheduler: LambdaLR) -> Trainer:
        training, device = self.config.training, self.task.to_input.device
        dtype = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        has_mix = training.mixup > 0 or training.cutmix > 0
        return Trainer(
            task=self.task,
            training=training,
            num_steps=self._num_steps(),
            shuffle_buffer=self.config.data.shuffle_buffer,
            model=wrap(self.task.model, device, compile=training.compile, sync_batchnorm=training.sync_batchnorm),
            optimizer=optimizer,
            scheduler=lr_scheduler,
            scaler=torch.amp.GradScaler(device.type, enabled=dtype is torch.float16),
            autocast_dtype=dtype,
            mix=BatchMix(training.mixup, training.cutmix, self.task.info.num_classes) if has_mix else None,
            ema=None if training.ema_decay is None else Ema(self.task.model, training.ema_decay),
            bad_images=self.bad_images,
            stage=self.stage,
            faults=self.faults,
        )

    def _num_steps(self) -> int:
        """Global batches an epoch."""
        steps = steps_per_epoch(len(self.task.train_indices), self.config.training.batch_size)
        return min(steps, self.config.training.limit_batches or steps)

    def _lr_scheduler(self, optimizer: SGD, epochs: int) -> LambdaLR:
        """The course of a phase of so many epochs, from its start."""
        factor: Callable[[int], float] = functools.partial(
            _scaled_lr_factor,
            scale=self.faults.lr_factor(self.stage),
            steps_per_epoch=self._num_steps(),
            epochs=epochs,
            training=self.config.training,
        )
        return LambdaLR(optimizer, factor)

    def _sgd_options(self) -> dict[str, Any]:
        training = self.config.training
        return {
            "momentum": training.momentum,
            "nesterov": training.nesterov,
            "weight_decay": training.weight_decay,
            "fused": True,
        }

    def _stop_gradients_of_frozen(self, inq: INQScheduler) -> None:
        """A tensor without live weights needs no gradient: none is computed, none travels."""
        for name, param in inq.quantized().items():
            param.requires_grad_(not bool(inq.state[name].frozen.all()))

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
        began = time.perf_counter()
        accuracy = _validate(self.task, self.config, self.bad_images)
        if epoch and not math.isfinite(accuracy.loss):
            raise DivergedError(
                f"the validation loss after epoch {self.epochs_done} is {accuracy.loss}: lower --lr, or warm up longer"
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
            train_loss=result.loss if result else None,
            train_top1=result.top1 if result else None,
            train_seconds=result.spent.seconds if result else None,
            data_seconds=result.spent.data_seconds if result else None,
            network_seconds=result.spent.network_seconds if result else None,
            images_per_second=result.images_per_second if result else None,
            num_bad_images=len(self.bad_images),
            num_skipped_steps=self.faults.num_skipped,
        )
        self.rows.append(row)
        if rank() == 0:
            self.folder.append(row)
            self.reporter.report(row)
        return row

    def _check_replicas(self, inq: INQScheduler | None) -> str:
        """Every rank's weights, buffers, masks and codes must be the same bits; returns their digest."""
        tensors = dict(self.task.model.state_dict())
        if inq is not None:
            tensors |= state_tensors(inq.state)
        return check_replicas(tensors, stage=inq.stage if inq else None, what="weights, buffers, masks or codes")

    def _finish(self, inq: INQScheduler | None) -> dict[str, Any]:
        """Writes the result, reads it back, and proves it; summary.json comes last."""
        digest = self._check_replicas(inq)
        self.checkpoints.close()
        summary = {**summarize(self.config, self.rows), "digest": digest, "world_size": world_size()}
        if rank() != 0:
            return summary
        state = self.task.model.state_dict()
        write_result(self.folder.result, state, inq.state if inq else {})
        verification = verify(self.folder.result, inq.state if inq else {})
        summary |= {
            "num_bad_images": len(self.bad_images),
            "bad_images": self.bad_images.reasons,
            "num_skipped_steps": self.faults.num_skipped,
            "rewinds": list(self.faults.rewinds),
            "spent": {**dataclasses.asdict(self.spent), "bound_by": self.spent.bound},
            "verification": dataclasses.asdict(verification),
            "seconds": time.perf_counter() - self.began,
            "versions": {"inq_ray": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "config": dataclasses.asdict(self.config),
        }
        self.folder.write_summary(summary)
        return summary

    def _report_start(self, groups: list[dict[str, Any]]) -> None:
        if rank() != 0:
            return
        params: list[tuple[nn.Parameter, bool]] = [
            (param, group["weight_bits"] is not None) for group in groups for _, param in group["params"]
        ]
        self.reporter.report(
            Started(
                arch=self.config.network.arch,
                num_parameters=sum(param.numel() for param, _ in params),
                num_quantized=sum(param.numel() for param, is_quantized in params if is_quantized),
                num_train=len(self.task.train_indices),
                num_validation=len(self.task.validation_indices),
                world_size=world_size(),
                device=str(self.task.to_input.device),
                precision=self.precision,
            )
        )


def _scaled_lr_factor(step: int, *, scale: float, **course: Any) -> float:
    return scale * lr_factor(step, **course)


def _validate(task: Task, config: RunConfig, bad_images: BadImages) -> Accuracy:
    requests = eval_requests(
        task.validation_indices, rank=rank(), world_size=world_size(), limit=config.training.limit_batches
    )
    return evaluate(task.model, task.loader.batches(requests), task.to_input, bad_images)
