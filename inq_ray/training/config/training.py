"""Options for training, before the first stage and in each stage."""

import functools
from dataclasses import dataclass
from typing import Any, Literal

from inq_ray.training.config.checks import between, count
from inq_ray.training.config.network import is_weights_name
from inq_ray.training.config.option import Affects, Phase, Unused, check_options, option

LrSchedule = Literal["cosine", "step", "constant"]
Precision = Literal["auto", "float32", "bf16", "fp16"]
EpochsSpread = Literal["even", "late"]
OnNan = Literal["stop", "skip", "rewind"]
GradientCommunication = Literal["dense", "live", "auto"]

_RATE = between("(0, inf)")
_ALPHA = between("[0, 1000]")
_EPOCHS = count(0, 1_000_000)

_option = functools.partial(option, phase=Phase.TRAINING)
_of_stages = functools.partial(option, phase=Phase.STAGES)


def _without(flag: str, when: Any) -> tuple[Unused, ...]:
    """Return the case that the option has no effect without another flag."""
    return (Unused(when=when, why=f"has no effect without {flag}"),)


_NOT_STEP = _without("--lr-schedule step", lambda config: config.training.lr_schedule != "step")
_NOT_DISTILLED = _without("--distill", lambda config: not config.training.distill)


_ONE_WORKER = (Unused(when=lambda config: config.cluster.workers.most == 1, why="has no effect with one worker"),)


def _is_without_labels(config: Any) -> bool:
    return bool(config.training.distill and config.training.distill_labels == 0)


def _why_without_labels(config: Any, _: object) -> str:
    if config.float_epochs:  # float training uses labels
        return "has no effect in stages with --distill, which uses no labels there; add --distill-labels"
    return "has no effect with --distill, which uses no labels; add --distill-labels"


def _warms_too_long(config: Any) -> bool:
    return bool(max((config.float_epochs, *config.stage_epochs)) < config.training.warmup_epochs)


def _why_too_long(config: Any, _: object) -> str:
    longest = max((config.float_epochs, *config.stage_epochs))
    epochs = config.training.warmup_epochs
    return f"keeps the learning rate below --lr: it rises for {epochs:g} epochs, but the longest stage has {longest}"


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Training, before the first stage and in each stage."""

    epochs: int = _option(
        4,
        "Epochs of re-training per stage; with --plain, of the whole training.",
        check=_EPOCHS,
        in_stage_key=False,
        fits_all=True,
        replaces=("epochs_total", "epochs_each"),
        unused=(
            Unused(when=lambda config: config.training.epochs_each, why="has no effect with --epochs-each"),
            Unused(
                when=lambda config: config.training.epochs_total is not None, why="has no effect with --epochs-total"
            ),
        ),
    )
    epochs_total: int | None = _option(
        None,
        "Epochs of re-training over all stages, divided by --epochs-spread; replaces --epochs.",
        check=_EPOCHS,
        in_stage_key=False,
        replaces=("epochs_each",),
    )
    epochs_spread: EpochsSpread = _option(
        "even",
        "Division of --epochs-total: even, earlier stages first; late, more for later stages, one for the last.",
        in_stage_key=False,  # the resulting epochs are
        unused=_without("--epochs-total", lambda config: config.training.epochs_total is None),
    )
    epochs_each: tuple[int, ...] = _option(
        (),
        "Epochs of re-training for each stage, such as 2 2 2 6; replaces --epochs.",
        check=_EPOCHS,
        in_stage_key=False,
        replaces=("epochs_total",),
    )
    float_epochs: int = _option(
        0, "Epochs of float training before the first stage; for networks without trained weights.", check=_EPOCHS
    )
    batch_size: int = _option(
        256, "Images per step over all workers (global batch size).", aliases=("-b",), check=count(1)
    )
    accumulate: int = _option(
        1, "Microbatches per step and worker (gradient accumulation), to save memory.", check=count(1)
    )
    lr: float = _option(
        0.001,
        "Learning rate at the start of each stage.",
        aliases=("--learning-rate",),
        check=_RATE,
        in_stage_key=False,
        fits_all=True,
        replaces=("lr_each", "lr_probe"),
        unused=(
            Unused(when=lambda config: config.training.lr_each, why="has no effect with --lr-each"),
            Unused(
                when=lambda config: config.training.lr_probe and not config.plain, why="has no effect with --lr-probe"
            ),
        ),
    )
    lr_each: tuple[float, ...] = _option(
        (),
        "Learning rate at the start of each stage, one number per stage, such as 0.02 0.01 0.01 0.004; replaces --lr.",
        check=_RATE,
        in_stage_key=False,
        replaces=("lr_probe",),
    )
    lr_probe: bool = _of_stages(
        False,
        "Find the learning rate of stages by short trials before the first stage; replaces --lr.",
        fits_all=True,
        replaces=("lr_each",),
        unused=(Unused(when=lambda config: config.training.lr_each, why="has no effect with --lr-each"),),
    )
    float_lr: float = _option(
        0.1,
        "Learning rate of the float training (--float-epochs).",
        check=_RATE,
        unused=_without("--float-epochs", lambda config: config.training.float_epochs == 0),
    )
    momentum: float = _option(0.9, "Momentum of SGD.", check=between("[0, 1)"))
    nesterov: bool = _option(False, "Use Nesterov momentum.")
    weight_decay: float = _option(
        5e-4, "Weight decay (L2 penalty) of live weights.", aliases=("--wd",), check=between("[0, inf)"), fits_all=True
    )
    lr_schedule: LrSchedule = _option("step", "Learning rate schedule within a stage; it restarts at each stage.")
    lr_step_epochs: float = _option(
        2.0,
        "Epochs between reductions of the learning rate by --lr-gamma, with --lr-schedule step.",
        check=_RATE,
        unused=_NOT_STEP,
    )
    lr_gamma: float = _option(
        0.1, "Factor of each reduction, with --lr-schedule step.", check=between("(0, 1]"), unused=_NOT_STEP
    )
    warmup_epochs: float = _option(
        0.0,
        "Epochs of linear warm-up of the learning rate at the start of each stage.",
        check=between("[0, inf)"),
        unused=(Unused(when=_warms_too_long, why=_why_too_long),),
    )
    seed: int = option(
        0,
        "Random seed for order, augmentation, initial weights, the random partition and --holdout.",
        check=between(f"[0, {2**63})"),
        sweep="it selects the held-out images, and trials are only comparable on the same ones: run the sweep once for "
        "each --seed",
    )
    precision: Precision = _option(
        "auto", "Training precision; auto is bf16 on GPUs and float32 on CPUs. Accuracy is always measured in float32."
    )
    channels_last: bool = option(True, "Use the channels-last memory format for images and convolutions.")
    distill: bool = _of_stages(
        False, "Re-train with the outputs of the float network (the teacher) as targets instead of labels."
    )
    teacher: str | None = _of_stages(
        None,
        "Weights of the teacher, as for --weights, for the same network or --teacher-arch; default: the run's own.",
        in_stage_key=False,  # the weights themselves are
        sweep=False,
        path=is_weights_name,
        unused=(
            Unused(
                when=lambda config: not config.training.distill,
                why="has no effect without --distill: add it, or leave this out",
                is_refused=True,
            ),
        ),
    )
    teacher_arch: str | None = _of_stages(
        None,
        "Network of the teacher, named as for --arch; needs --teacher. Default: the network that is quantized.",
        sweep=False,
        unused=(
            *_NOT_DISTILLED,
            Unused(
                when=lambda config: config.training.teacher is None,
                why="needs trained weights: name those of this network with --teacher",
                is_refused=True,
            ),
        ),
    )
    distill_temperature: float = _of_stages(
        3.0,
        "Softmax temperature for distillation; higher gives softer targets.",
        check=between("(0, 1000]"),
        unused=_NOT_DISTILLED,
    )
    distill_labels: float = _of_stages(
        0.0,
        "Weight of the label loss in distillation, from 0 to below 1; the teacher's loss has the rest.",
        check=between("[0, 1)"),
        unused=_NOT_DISTILLED,
    )
    label_smoothing: float = _option(
        0.0,
        "Label smoothing: fraction of each label that is spread over all classes.",
        check=between("[0, 1)"),
        unused=(Unused(when=_is_without_labels, why=_why_without_labels),),
    )
    mixup: float = _option(0.0, "Alpha of Mixup; 0 = off. With --cutmix, each batch uses one of them.", check=_ALPHA)
    cutmix: float = _option(0.0, "Alpha of CutMix; 0 = off.", check=_ALPHA)
    clip_grad_norm: float | None = _option(
        None,
        "Maximum norm of the gradient of all live weights; larger gradients are scaled down. Default: off.",
        check=_RATE,
    )
    ema_decay: float | None = _option(
        None,
        "Decay of a moving average of each stage's weights, which is validated and kept; default: no average.",
        check=between("(0, 1)"),
        replaces=("ema_share",),
    )
    ema_share: float | None = _option(
        None,
        "Horizon of the moving average as a fraction of a stage's steps, such as 0.3; replaces --ema-decay.",
        check=between("(0, 1]"),
        replaces=("ema_decay",),
    )
    compile: bool = _option(False, "Compile the network with torch.compile.")
    cuda_graphs: bool = _option(
        False,
        "Run a whole step as one CUDA graph, for small networks on one GPU; the same bits. Not yet tested on a GPU.",
        affects=Affects.NOTHING,
    )
    gradient_communication: GradientCommunication = _of_stages(
        "dense",
        "Gradients workers exchange: dense (all), live (of live weights), auto (the faster, measured at each stage).",
        affects=Affects.ROUNDING,
        unused=_ONE_WORKER,
    )
    sync_batchnorm: bool = _option(
        False, "Synchronize BatchNorm statistics over all workers (GPUs only).", unused=_ONE_WORKER
    )
    bn_images: int = _of_stages(
        0,
        "Training images for estimating BatchNorm statistics after the last stage; 0 = off.",
        check=count(0),
        in_stage_key=False,  # affects the end of the last stage only, which has no key
    )
    on_nan: OnNan = _option(
        "stop",
        "Action if a loss or gradient is not finite: stop, skip the step, or rewind to the stage's start with half the "
        "learning rate.",
        affects=Affects.ROUNDING,
    )
    limit_batches: int | None = option(
        None,
        "Maximum number of steps per epoch, and of validation batches of 250 images; for quick tests.",
        check=count(1),
        sweep="it sets the number of held-out images for accuracy, and trials are only comparable on the same ones: "
        "use one value for all trials, with --limit-batches N",
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.nesterov and self.momentum == 0:
            raise ValueError("--nesterov needs a --momentum above 0")
        if self.epochs_each and self.epochs_total is not None:
            raise ValueError("--epochs-each and --epochs-total exclude each other: leave one of them out")
        if self.ema_decay is not None and self.ema_share is not None:
            raise ValueError("--ema-decay and --ema-share exclude each other: leave one of them out")
