"""One phase of training: float training, or the re-training of a stage, from the current position to its end."""

import contextlib
import dataclasses
from dataclasses import dataclass

from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.wire import rank
from inq_ray.scheduler import INQScheduler
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.snapshot import Parts
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.loop.build import make_trainer
from inq_ray.training.loop.gradients import GradientTimes, GradientTrial
from inq_ray.training.loop.trainer import EpochState, Trainer
from inq_ray.training.report.events import Note
from inq_ray.training.report.progress import Epoch
from inq_ray.training.run_state import RunState
from inq_ray.training.task.distill import Teacher


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A planned phase and its objects.

    Attributes:
        stage: 0 for float training, else from 1.
        portion: Accumulated fraction of frozen weights.
        epochs: Epochs of the phase.
        optimizer: Optimizer of the weights.
        inq: Masks and codes; None during float training.
        teacher: Teacher, for a distilled stage.
    """

    stage: int
    portion: float
    epochs: int
    optimizer: SGD
    inq: INQScheduler | None = None
    teacher: Teacher | None = None


def parts_of(run: RunState, phase: Phase) -> Parts:
    """Return a checkpoint's objects at an end of the phase, where schedule, scaler and averages are not needed."""
    return Parts(
        model=run.task.model,
        optimizer=phase.optimizer,
        inq=phase.inq,
        teacher=None if phase.teacher is None else phase.teacher.model,
    )


def train_phase(run: RunState, phase: Phase) -> Accuracy | None:
    """Train the remaining epochs of a phase, and save its end; every rank calls it.

    Returns:
        Accuracy after the last epoch; None if none was left.

    Raises:
        DivergedError: A loss or its gradient is not finite.
        StopError: A rank was asked to stop; a checkpoint is taken.
    """
    position = run.position_in(phase.stage) or TrainingPosition(stage=phase.stage, epoch=0, step=0)
    if position.epoch >= phase.epochs:
        return None
    trainer = make_trainer(
        run.train_batches(),
        phase.optimizer,
        stage=phase.stage,
        lr=run.lr_of(phase.stage),
        epochs=phase.epochs,
        faults=run.journal.faults,
        teacher=phase.teacher,
    )
    trainer.warm_up_ddp()
    trainer = _choosing_gradients(run, trainer, position)
    accuracy = PhaseTraining(run, phase, trainer).train(position)
    end = TrainingPosition(stage=phase.stage, epoch=phase.epochs, step=0)
    run.save_stage_end(parts_of(run, phase), end, accuracy.top1)
    return accuracy


def _choosing_gradients(run: RunState, trainer: Trainer, position: TrainingPosition) -> Trainer:
    """Return the trainer of a phase with the gradients that ranks exchange, or with a trial that chooses them.

    With --gradient-communication auto they are chosen where a phase begins. A run that continues within it keeps the
    choice, on which bits depend with more than two ranks.
    """
    journal, live = run.journal, trainer.live
    if live is None or run.config.training.gradient_communication != "auto":
        journal.gradients = None
        return trainer
    num_done = position.epoch * trainer.num_steps + position.step
    if journal.gradients is not None and num_done:
        live.is_on = journal.gradients == "live"
        return trainer
    journal.gradients = None

    def on_choice(times: GradientTimes) -> None:
        journal.gradients = times.choice
        if rank() == 0:
            journal.report(Note(f"stage {trainer.stage}: {times}"))

    trial = GradientTrial(live, run.task.to_input.device, num_done, on_choice)
    return dataclasses.replace(trainer, trial=trial)


class PhaseTraining:
    """The epochs of a phase, each validated, with checkpoints in between when they are due.

    Args:
        run: The run.
        phase: The phase.
        trainer: Trainer of the phase, at its start.
    """

    def __init__(self, run: RunState, phase: Phase, trainer: Trainer) -> None:
        self.run = run
        self._phase = phase
        self._trainer = trainer
        self._parts = dataclasses.replace(
            parts_of(run, phase), lr_scheduler=trainer.scheduler, scaler=trainer.scaler, ema=trainer.ema
        )
        self._is_due = False

    def train(self, start: TrainingPosition) -> Accuracy:
        """Train from a position to the end of the phase; return the accuracy after the last epoch."""
        state = self.run.restore_epoch(self._parts, start)
        for number in range(start.epoch + 1, self._phase.epochs):
            accuracy = self._train_epoch(number, state)
            self._save_if_due(number, accuracy)
            state = None
        return self._train_epoch(self._phase.epochs, state)

    def _train_epoch(self, number: int, state: EpochState | None) -> Accuracy:
        """Train and validate one epoch of the phase.

        Args:
            number: Number of the epoch, from 1.
            state: State to continue from; None = its beginning.
        """
        phase, trainer, journal = self._phase, self._trainer, self.run.journal
        lr = trainer.scheduler.base_lrs[0] * trainer.scheduler.lr_lambdas[0]((number - 1) * trainer.num_steps)
        epoch = Epoch(
            stage=phase.stage, portion=phase.portion, epoch=number, epochs=phase.epochs, steps=trainer.num_steps
        )
        result = trainer.train_epoch(journal.epochs_done, lambda state: self.on_step(epoch, state), state)
        journal.epochs_done += 1
        journal.spent += result.spent
        is_last = number == phase.epochs
        if is_last:
            if trainer.ema is not None:
                trainer.ema.store()
            self.run.estimate_batchnorm(phase.stage)
        with contextlib.nullcontext() if trainer.ema is None or is_last else trainer.ema.swapped():
            return self.run.validate(
                stage=phase.stage, portion=phase.portion, epoch=number, lr=float(lr), result=result
            )

    def on_step(self, epoch: Epoch, state: EpochState) -> None:
        """Report a step, and save the run if a checkpoint is due."""
        self.run.journal.report_step(epoch, state)
        look = self.run.checkpoints.clock.tick()
        is_end = state.step == epoch.steps
        if look.is_due and is_end:
            self._is_due = True  # after the epoch's validation
        if look.is_asked or (look.is_due and not is_end):
            self._trainer.check()
            position = TrainingPosition(stage=epoch.stage, epoch=epoch.epoch - 1, step=state.step)
            self.run.save(self._parts, position, state=state, is_last=look.is_asked)

    def _save_if_due(self, number: int, accuracy: Accuracy) -> None:
        """Save the run between two epochs, if a checkpoint is due or the run is to stop."""
        is_asked = self.run.checkpoints.clock.look()
        if self._is_due or is_asked:
            self._is_due = False
            position = TrainingPosition(stage=self._phase.stage, epoch=number, step=0)
            self.run.save(self._parts, position, top1=accuracy.top1, is_last=is_asked)
