"""How it is trained."""

import math
from dataclasses import dataclass
from typing import Literal

from inq_ray.training.config.checks import check_at_least, check_choice

LrSchedule = Literal["cosine", "step", "constant"]
Precision = Literal["auto", "float32", "bf16", "fp16"]
OnNan = Literal["stop", "skip", "rewind"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How it is trained, before the first stage and in each stage."""

    epochs: int = 4
    """Epochs of re-training per stage (of training in all with --plain)."""
    epochs_total: int | None = None
    """Epochs of re-training over all stages, dealt out evenly, earlier stages first; instead of --epochs."""
    epochs_each: tuple[int, ...] = ()
    """Epochs of re-training of each stage, such as 2 2 2 6; instead of --epochs."""
    float_epochs: int = 0
    """Epochs of plain training before the first stage, for a network that comes without trained weights."""
    batch_size: int = 256
    """Images a step over all workers together (global)."""
    accumulate: int = 1
    """Parts in which a worker computes its share of a step, one after the other, to save memory."""
    lr: float = 0.001
    """Learning rate at the start of each stage."""
    lr_each: tuple[float, ...] = ()
    """Learning rate at the start of each stage, such as 0.02 0.01 0.01 0.004; instead of --lr."""
    float_lr: float = 0.1
    """Learning rate of the plain training that --float-epochs asks for."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Nesterov's momentum."""
    weight_decay: float = 5e-4
    """L2 penalty of live weights (also --wd)."""
    lr_schedule: LrSchedule = "step"
    """Course of the learning rate within a stage; it starts again at each stage."""
    lr_step_epochs: float = 2.0
    """Epochs after which --lr-schedule step multiplies the learning rate by --lr-gamma."""
    lr_gamma: float = 0.1
    """Factor of --lr-schedule step."""
    warmup_epochs: float = 0.0
    """Epochs in which the learning rate rises linearly to its value, at the start of each stage."""
    seed: int = 0
    """Of everything that is drawn: order, augmentation, fresh weights, random partition."""
    precision: Precision = "auto"
    """Of training; auto is bf16 on GPUs, float32 on CPUs. Accuracy is always measured in float32."""
    channels_last: bool = True
    """Memory format of images and convolutions."""
    distill: bool = False
    """Re-train stages towards the outputs of the float network, their teacher, instead of labels."""
    teacher: str | None = None
    """Weights of the teacher, as --weights takes them, of the same network; by default the run's own float ones."""
    distill_temperature: float = 3.0
    """Temperature of distillation: how much of what the teacher says of other classes is heard."""
    distill_labels: float = 0.0
    """Weight of the labels' loss in distillation, the teacher's is the rest."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes in training."""
    mixup: float = 0.0
    """Alpha of mixup; 0 = off. With --cutmix too, each batch is either."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0 = off."""
    clip_grad_norm: float | None = None
    """Largest norm of the gradient of all live weights; longer ones are shortened to it."""
    ema_decay: float | None = None
    """Decay of a moving average of each stage's weights, which is validated and goes on; by default there is none."""
    ema_share: float | None = None
    """Reach of that average as a share of a stage's steps, such as 0.3, whatever they are; instead of --ema-decay."""
    compile: bool = False
    """Compile the network by torch.compile."""
    cuda_graphs: bool = False
    """Have a GPU run a step's passes as one CUDA graph: the same bits, fewer launches; small networks, one worker."""
    sync_batchnorm: bool = False
    """BatchNorm over all workers' images together (GPUs only)."""
    bn_images: int = 0
    """Training images from which BatchNorm's statistics, if any, are estimated anew after the last stage; 0 = off."""
    on_nan: OnNan = "stop"
    """If a loss or gradient is not finite: stop, skip the step, or rewind to the stage's start at half the rate."""
    limit_batches: int | None = None
    """Steps of an epoch, and batches of 250 validation images, at most: for a trial."""

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_rates()
        self._check_distillation()
        self._check_averages()
        if self.epochs_each and self.epochs_total is not None:
            raise ValueError("--epochs-each and --epochs-total exclude each other: leave one of them out")
        if self.ema_decay is not None and self.ema_share is not None:
            raise ValueError("--ema-decay and --ema-share exclude each other: leave one of them out")
        check_choice("--lr-schedule", self.lr_schedule, LrSchedule)
        check_choice("--precision", self.precision, Precision)
        check_choice("--on-nan", self.on_nan, OnNan)

    def _check_counts(self) -> None:
        for flag, value, least in (
            ("--epochs", self.epochs, 0),
            ("--float-epochs", self.float_epochs, 0),
            ("--batch-size", self.batch_size, 1),
            ("--accumulate", self.accumulate, 1),
            ("--seed", self.seed, 0),
            ("--bn-images", self.bn_images, 0),
            ("--epochs-total", 0 if self.epochs_total is None else self.epochs_total, 0),
            ("--limit-batches", 1 if self.limit_batches is None else self.limit_batches, 1),
            *(("--epochs-each", epochs, 0) for epochs in self.epochs_each),
        ):
            check_at_least(flag, value, least)
        if self.seed >= 2**63:
            raise ValueError(f"--seed must be below 2^63, got {self.seed}")

    def _check_rates(self) -> None:
        for flag, rate in (
            ("--lr", self.lr),
            *(("--lr-each", rate) for rate in self.lr_each),
            ("--float-lr", self.float_lr),
            ("--lr-step-epochs", self.lr_step_epochs),
        ):
            if not (math.isfinite(rate) and rate > 0):
                raise ValueError(f"{flag} must be finite and above 0, got {rate}")
        for flag, rate in (
            ("--weight-decay", self.weight_decay),
            ("--warmup-epochs", self.warmup_epochs),
            ("--mixup", self.mixup),
            ("--cutmix", self.cutmix),
        ):
            if not (math.isfinite(rate) and rate >= 0):
                raise ValueError(f"{flag} must be finite, and 0 or above, got {rate}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"--momentum must be in [0, 1), got {self.momentum}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("--nesterov needs a --momentum above 0")
        if not 0 < self.lr_gamma <= 1:
            raise ValueError(f"--lr-gamma must be in (0, 1], got {self.lr_gamma}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"--label-smoothing must be in [0, 1), got {self.label_smoothing}")
        if self.clip_grad_norm is not None and not (math.isfinite(self.clip_grad_norm) and self.clip_grad_norm > 0):
            raise ValueError(f"--clip-grad-norm must be above 0, got {self.clip_grad_norm}")

    def _check_distillation(self) -> None:
        if not (math.isfinite(self.distill_temperature) and self.distill_temperature > 0):
            raise ValueError(f"--distill-temperature must be above 0, got {self.distill_temperature}")
        if not 0 <= self.distill_labels < 1:
            raise ValueError(f"--distill-labels must be in [0, 1), got {self.distill_labels}")
        if self.teacher is not None and not self.distill:
            raise ValueError(f"--teacher {self.teacher} plays no part: add --distill")

    def _check_averages(self) -> None:
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"--ema-decay must be in (0, 1), got {self.ema_decay}")
        if self.ema_share is not None and not 0 < self.ema_share <= 1:
            raise ValueError(f"--ema-share must be in (0, 1], got {self.ema_share}")
