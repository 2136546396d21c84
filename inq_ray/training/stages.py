"""Float training and the stages of a run; each stage: quantize, validate, save, re-train."""

from typing import Any

from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.replica import broadcast_tensors
from inq_ray.distributed.wire import rank
from inq_ray.models.layer_weights import named_parameters
from inq_ray.scheduler import INQScheduler
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.float_check import check_float_accuracy, doubt_of_given, warning_of_given, warning_of_trained
from inq_ray.training.loop.build import sgd_options
from inq_ray.training.phase import Phase, parts_of, train_phase
from inq_ray.training.rate_probe import MOST_STEPS, probe_rate
from inq_ray.training.report.events import Note
from inq_ray.training.run_state import RunState
from inq_ray.training.task.distill import Teacher, make_teacher


def train_float(run: RunState) -> None:
    """Train the float network, before the first stage or for all epochs of a plain run.

    Every rank calls it.
    """
    config = run.config
    if not config.float_epochs or run.is_past(0):
        return
    optimizer = SGD(run.task.model.parameters(), lr=config.lr_of(0), **sgd_options(config.training))
    phase = Phase(stage=0, portion=0.0, epochs=config.float_epochs, optimizer=optimizer)
    if run.position_in(0) is not None:
        run.restore(parts_of(run, phase))
    accuracy = train_phase(run, phase)
    warning = None if accuracy is None else warning_of_trained(run.task.info, accuracy)
    if warning is not None and rank() == 0:
        run.journal.report(Note(f"warning: {warning}"))


def measure_given(run: RunState) -> None:
    """Measure given weights, and warn if their accuracy is implausible; every rank calls it.

    Raises:
        FloatAccuracyError: They must not be quantized; nothing is frozen. Raised on every rank.
    """
    accuracy = run.validate(stage=0, portion=0.0)
    doubt = doubt_of_given(run.config, run.task.info, accuracy)
    if doubt is None:
        return
    check_float_accuracy(run.config, doubt)
    if rank() == 0:
        run.journal.report(Note(f"warning: {warning_of_given(doubt)}"))


def run_stages(run: RunState, groups: list[dict[str, Any]]) -> INQScheduler:
    """Run the remaining stages; every rank calls it.

    Args:
        run: The run, with its network float or as in the checkpoint that it continues from.
        groups: The network's parameters, from :func:`inq_ray.param_groups`.

    Returns:
        The scheduler after its last stage.
    """
    config, model = run.config, run.task.model
    training, quantization = config.training, config.quantization
    untrained = frozenset(name for name, param in named_parameters(model) if not param.requires_grad)
    optimizer = SGD(groups, lr=config.lr_of(1), **sgd_options(training))
    portions = quantization.iterative_steps
    inq = INQScheduler(optimizer, portions, quantization.strategy, training.seed, codebook=quantization.codebook)
    teacher = make_teacher(training, config.network.arch, run.task)  # the network before the first stage
    phases = [
        Phase(stage=stage, portion=portion, epochs=epochs, optimizer=optimizer, inq=inq, teacher=teacher)
        for stage, (portion, epochs) in enumerate(zip(portions, config.stage_epochs, strict=True), start=1)
    ]
    if run.start is not None and run.start.stage > 0:
        run.restore(parts_of(run, phases[0]))
    elif training.lr_probe and not training.lr_each and any(config.stage_epochs):
        _find_lr(run, groups, teacher)
    for phase in phases:
        if not run.is_past(phase.stage):
            _stage(run, phase, inq, untrained)
    return inq


def _find_lr(run: RunState, groups: list[dict[str, Any]], teacher: Teacher | None) -> None:
    """Find the learning rate of the stages by trials, which leave the network as it is; every rank calls it."""
    quantization, journal = run.config.quantization, run.journal
    broadcast_tensors(dict(run.task.model.named_buffers()))
    batches = run.train_batches()
    if rank() == 0:
        num_steps = min(MOST_STEPS, batches.steps_of_epoch)
        journal.report(Note(f"trials of {num_steps} steps at several rates: they take some minutes on large networks"))
    losses = probe_rate(
        batches,
        groups,
        teacher,
        lambda inq: inq.step(run.gather_moments(inq.quantized())),
        epoch=journal.epochs_done,
        strategy=quantization.strategy,
        codebook=quantization.codebook,
    )
    journal.found_lr = next(iter(losses))
    if rank() == 0:
        tried = ", ".join(f"{losses[rate]:.3g} at {rate:g}" for rate in sorted(losses))
        journal.report(Note(f"learning rate {journal.found_lr:g}, found by short trials: loss {tried}"))


def _stage(run: RunState, phase: Phase, inq: INQScheduler, untrained: frozenset[str]) -> None:
    """Run one stage, or the rest of it.

    Args:
        run: The run.
        phase: The stage's re-training.
        inq: Scheduler that quantizes the next portion.
        untrained: Names of parameters that the network itself does not train.
    """
    model = run.task.model
    is_new = run.position_in(phase.stage) is None
    if is_new:
        broadcast_tensors(dict(model.named_buffers()))
        if run.config.quantization.post_training:
            run.quantize_at_once(inq)
        else:
            inq.step(run.gather_moments(inq.quantized()))
    _stop_gradients_of_frozen(inq, untrained)
    has_live = any(param.requires_grad for param in model.parameters())
    if is_new:
        run.save_stage_end(
            parts_of(run, phase),
            TrainingPosition(stage=phase.stage, epoch=0, step=0),
            _measure_quantized(run, phase, is_trained=phase.epochs > 0 and has_live),
        )
    if has_live:
        train_phase(run, phase)


def _measure_quantized(run: RunState, phase: Phase, *, is_trained: bool) -> float | None:
    """Measure right after quantizing; return the top-1 of the network as it is, None if it is to be trained."""
    if is_trained:
        run.validate_before_training(stage=phase.stage, portion=phase.portion)
        return None
    run.estimate_batchnorm(phase.stage)
    return run.validate(stage=phase.stage, portion=phase.portion).top1


def _stop_gradients_of_frozen(inq: INQScheduler, untrained: frozenset[str]) -> None:
    """Turn off gradients of tensors without live weights, and of untrained ones, so none is computed or sent."""
    for name, param in inq.quantized().items():
        param.requires_grad_(name not in untrained and not bool(inq.state[name].frozen.all()))
