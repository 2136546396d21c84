"""The configuration of a run: frozen values, checked when made, that JSON keeps word for word."""

import contextlib
import dataclasses
import difflib
import json
import math
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from inq_ray.core.codebook import Rule, check_num_bits, check_rule
from inq_ray.core.partition import Strategy, check_strategy
from inq_ray.core.portions import check_portions
from inq_ray.data.preset import LARGEST_SIZE
from inq_ray.training.worker_range import WorkerRange

LrSchedule = Literal["cosine", "step", "constant"]
Interpolation = Literal["auto", "nearest", "bilinear", "bicubic"]
AutoAugment = Literal["none", "randaugment", "trivialaugment", "autoaugment", "augmix"]
Precision = Literal["auto", "float32", "bf16", "fp16"]
OnNan = Literal["stop", "skip", "rewind"]
OnMismatch = Literal["stop", "restart"]

_EVERY = re.compile(r"[1-9][0-9]{0,8}[smh]?")
_TIME = re.compile(r"[1-9][0-9]{0,8}[smh]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained and tested on."""

    data: str = "digits"
    """digits (scikit-learn's), a folder of train/CLASS/ and val/CLASS/, or Parquet; a path, or one such as s3://b/c."""
    follow_links: bool = False
    """Follow links in the folder of --data that lead out of it: only if you trust who made it."""
    holdout: int = 0
    """Training images to hold out and to validate on instead of the test set, for choosing hyperparameters."""
    loader_workers: int | None = None
    """Processes of each worker that read and decode images (also -j); by default its CPUs, none for data in memory."""
    shuffle_buffer: int = 8192
    """Images among which a worker shuffles Parquet that is read while training; their files are held in memory."""
    skip_bad_images: int = 0
    """Images that may be unreadable: they are left out and counted. With more the run ends and names one."""
    crop_size: int | None = None
    """Pixels of a side that the network is given; by default as its weights state."""
    train_crop_size: int | None = None
    """Pixels of a side in training, if not --crop-size."""
    resize_size: int | None = None
    """Pixels of the shorter side before the center crop of validation; by default as the weights state."""
    interpolation: Interpolation = "auto"
    """Of resizing; auto is as the weights state."""
    auto_augment: AutoAugment = "none"
    """Policy of augmentation after crop and flip."""
    random_erasing: float = 0.0
    """Probability that a rectangle of a training image is erased."""

    def __post_init__(self) -> None:
        _check_at_least("--holdout", self.holdout, 0)
        _check_at_least("--shuffle-buffer", self.shuffle_buffer, 1)
        _check_at_least("--skip-bad-images", self.skip_bad_images, 0)
        for flag, value, least in (
            ("--loader-workers", self.loader_workers, 0),
            ("--crop-size", self.crop_size, 1),
            ("--train-crop-size", self.train_crop_size, 1),
            ("--resize-size", self.resize_size, 1),
        ):
            if value is not None:
                _check_at_least(flag, value, least)
                if flag.endswith("-size") and value > LARGEST_SIZE:
                    raise ValueError(f"{flag} must be at most {LARGEST_SIZE} pixels, got {value}")
        _check_choice("--interpolation", self.interpolation, Interpolation)
        _check_choice("--auto-augment", self.auto_augment, AutoAugment)
        if not 0 <= self.random_erasing <= 1:
            raise ValueError(f"--random-erasing must be in [0, 1], got {self.random_erasing}")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The network."""

    arch: str = "digits_cnn"
    """A network of torchvision, timm/NAME, cifar_resnet20 (to 110), digits_cnn, or your own as module:function."""
    weights: str | None = None
    """File of trained weights (.safetensors, or a state dict such as .pth), or torchvision's name, such as DEFAULT."""
    replace_head: bool = False
    """Take weights of another number of classes, all but the last layer's, which starts fresh."""


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """What becomes of the weights."""

    weight_bits: int = 5
    """Bits of a weight, 2 to 8."""
    iterative_steps: tuple[float, ...] = (0.5, 0.75, 0.875, 1.0)
    """Accumulated portions of each tensor that are frozen after each stage; they rise and end at 1."""
    strategy: Strategy = "pruning"
    """Which weights freeze first: "pruning" the largest, "random" any."""
    codebook: Rule = "max"
    """From what the powers follow: "max" each tensor's largest weight, "mse" the least squared error, for 2 bits."""
    skip: tuple[str, ...] = ()
    """Patterns of layers that stay float, such as classifier or layer1.*."""

    def __post_init__(self) -> None:
        with _named("--weight-bits"):
            check_num_bits(self.weight_bits)
        with _named("--iterative-steps"):
            object.__setattr__(self, "iterative_steps", check_portions(self.iterative_steps, complete=True))
        with _named("--strategy"):
            check_strategy(self.strategy)
        with _named("--codebook"):
            check_rule(self.codebook)


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
    """Have a GPU run a step's passes as one CUDA graph: the same bits, faster for small networks; one worker only."""
    sync_batchnorm: bool = False
    """BatchNorm over all workers' images together (GPUs only)."""
    bn_images: int = 0
    """Training images from which BatchNorm's statistics, if any, are estimated anew after the last stage; 0 = off."""
    on_nan: OnNan = "stop"
    """If a loss or gradient is not finite: stop, skip the step, or rewind to the stage's start at half the rate."""
    limit_batches: int | None = None
    """Steps of an epoch, and batches of 250 validation images, at most: for a trial."""

    def __post_init__(self) -> None:
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
            _check_at_least(flag, value, least)
        if self.seed >= 2**63:
            raise ValueError(f"--seed must be below 2^63, got {self.seed}")
        if self.epochs_each and self.epochs_total is not None:
            raise ValueError("--epochs-each and --epochs-total exclude each other: leave one of them out")
        for flag, rate in (
            ("--lr", self.lr),
            *(("--lr-each", rate) for rate in self.lr_each),
            ("--float-lr", self.float_lr),
            ("--lr-step-epochs", self.lr_step_epochs),
        ):
            if not (math.isfinite(rate) and rate > 0):
                raise ValueError(f"{flag} must be above 0, got {rate}")
        for flag, rate in (
            ("--weight-decay", self.weight_decay),
            ("--warmup-epochs", self.warmup_epochs),
            ("--mixup", self.mixup),
            ("--cutmix", self.cutmix),
        ):
            if not (math.isfinite(rate) and rate >= 0):
                raise ValueError(f"{flag} must be 0 or above, got {rate}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"--momentum must be in [0, 1), got {self.momentum}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("--nesterov needs a --momentum above 0")
        if not 0 < self.lr_gamma <= 1:
            raise ValueError(f"--lr-gamma must be in (0, 1], got {self.lr_gamma}")
        if not (math.isfinite(self.distill_temperature) and self.distill_temperature > 0):
            raise ValueError(f"--distill-temperature must be above 0, got {self.distill_temperature}")
        if not 0 <= self.distill_labels < 1:
            raise ValueError(f"--distill-labels must be in [0, 1), got {self.distill_labels}")
        if self.teacher is not None and not self.distill:
            raise ValueError(f"--teacher {self.teacher} plays no part: add --distill")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"--label-smoothing must be in [0, 1), got {self.label_smoothing}")
        if self.clip_grad_norm is not None and not (math.isfinite(self.clip_grad_norm) and self.clip_grad_norm > 0):
            raise ValueError(f"--clip-grad-norm must be above 0, got {self.clip_grad_norm}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"--ema-decay must be in (0, 1), got {self.ema_decay}")
        if self.ema_share is not None and not 0 < self.ema_share <= 1:
            raise ValueError(f"--ema-share must be in (0, 1], got {self.ema_share}")
        if self.ema_decay is not None and self.ema_share is not None:
            raise ValueError("--ema-decay and --ema-share exclude each other: leave one of them out")
        _check_choice("--lr-schedule", self.lr_schedule, LrSchedule)
        _check_choice("--precision", self.precision, Precision)
        _check_choice("--on-nan", self.on_nan, OnNan)


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where it runs."""

    num_workers: int | str = 2
    """Processes that train together, one a GPU or CPU slot; of a range (2..8) as many as fit at each start."""
    use_gpu: bool = False
    """Give each worker a GPU."""
    cpus_per_worker: int = 1
    """CPU cores, and threads, of a worker."""
    max_failures: int = 3
    """Times that a run goes on from its last checkpoint after a worker or a node was lost."""
    placement_timeout: str = "10m"
    """Time (30s, 10m, 2h) to wait at each start for a cluster to have room for the least number of workers."""
    collective_timeout: str = "30m"
    """Time after which a worker that does not answer is taken for lost."""
    on_mismatch: OnMismatch = "stop"
    """If the workers' networks are no longer the same bits: stop, or restart from the last checkpoint."""

    def __post_init__(self) -> None:
        _check_at_least("--max-failures", self.max_failures, 0)
        workers = WorkerRange.parse(self.num_workers)
        object.__setattr__(self, "num_workers", workers.most if workers.least == workers.most else str(workers))
        _check_at_least("--cpus-per-worker", self.cpus_per_worker, 1)
        _check_time("--placement-timeout", self.placement_timeout)
        _check_time("--collective-timeout", self.collective_timeout)
        _check_choice("--on-mismatch", self.on_mismatch, OnMismatch)

    @property
    def workers(self) -> WorkerRange:
        """The least and the most workers."""
        return WorkerRange.parse(self.num_workers)

    @property
    def placement_seconds(self) -> int:
        """The bound of waiting for room."""
        return _seconds(self.placement_timeout)

    @property
    def collective_seconds(self) -> int:
        """The bound of every wait of one worker for another."""
        return _seconds(self.collective_timeout)


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where the result goes."""

    storage_path: str = "runs"
    """Folder of all runs; with several nodes one that all of them see."""
    name: str | None = None
    """Name of the run and of its folder; by default network, bits and time."""
    overwrite: bool = False
    """Delete an earlier run of the same name."""
    print_freq: int | None = None
    """Steps between printed lines of progress (also -p); by default a line a minute, or a live one on a terminal."""
    track: tuple[str, ...] = ()
    """Where metrics go beside the run's folder: tensorboard, mlflow, wandb."""
    checkpoint_every: str = "10m"
    """Time (30s, 10m, 2h) or steps (500) between checkpoints; there is one at each stage's two ends in any case."""
    checkpoint_path: str | None = None
    """Folder or address (s3://bucket/runs) for checkpoints; by default the run's own folder."""
    keep_checkpoints: int = 2
    """Checkpoints to keep beside those of each stage's end and the best one."""
    resume: str = "auto"
    """auto goes on with an unfinished run of the same name, never does not, a path goes on from that checkpoint."""

    def __post_init__(self) -> None:
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise ValueError(
                f"--name {self.name!r} is not allowed: take letters, digits, dots, dashes and underscores, "
                "and begin with a letter or digit"
            )
        if "://" in self.storage_path:
            raise ValueError(
                f"--storage-path must be a folder that every node sees, got the address {self.storage_path!r}"
            )
        _check_at_least("--keep-checkpoints", self.keep_checkpoints, 1)
        if not _EVERY.fullmatch(self.checkpoint_every):
            raise ValueError(
                f"--checkpoint-every must be a time such as 30s, 10m or 2h, or a number of steps, got "
                f"{self.checkpoint_every!r}"
            )
        if self.print_freq is not None:
            _check_at_least("--print-freq", self.print_freq, 1)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a run."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    plain: bool = False
    """Train the network without quantizing anything."""

    def __post_init__(self) -> None:
        training = self.training
        if training.precision == "fp16" and not self.cluster.use_gpu:
            raise ValueError("--precision fp16 needs --use-gpu: on CPUs take float32 or bf16")
        most = self.cluster.workers.most
        if training.batch_size < most * training.accumulate:
            raise ValueError(
                f"--batch-size {training.batch_size} (global) is too small for {most} workers and "
                f"--accumulate {training.accumulate}: take at least {most * training.accumulate}"
            )
        if self.plain and training.float_epochs:
            raise ValueError(f"--plain trains for --epochs: set --float-epochs 0, got {training.float_epochs}")
        if self.plain and training.epochs == 0:
            raise ValueError("--plain needs --epochs of at least 1, got 0")
        if self.plain and training.epochs_total is not None:
            raise ValueError("--plain has no stages: give --epochs instead of --epochs-total")
        for flag, each in (("--epochs-each", training.epochs_each), ("--lr-each", training.lr_each)):
            self._check_one_a_stage(flag, each)
        if self.plain and training.distill:
            raise ValueError("--plain has no stages to --distill: leave one of them out")
        if self.plain and training.bn_images:
            raise ValueError("--plain has no stages after which --bn-images could count: leave one of them out")
        if training.cuda_graphs:
            self._check_graphs()
        if training.sync_batchnorm and not self.cluster.use_gpu:
            raise ValueError("--sync-batchnorm needs --use-gpu: torch has it for GPUs only")

    def _check_graphs(self) -> None:
        training, workers = self.training, self.cluster.workers
        if not self.cluster.use_gpu:
            raise ValueError("--cuda-graphs needs --use-gpu: leave it out on CPUs")
        if workers.most > 1:
            raise ValueError(f"--cuda-graphs is for one worker, got --num-workers {workers}: leave one of them out")
        for flag, is_set in (
            ("--compile", training.compile),
            ("--accumulate", training.accumulate > 1),
            ("--precision fp16", training.precision == "fp16"),
        ):
            if is_set:
                raise ValueError(f"--cuda-graphs does not go together with {flag}: leave one of them out")

    def _check_one_a_stage(self, flag: str, each: tuple[float, ...]) -> None:
        portions = self.quantization.iterative_steps
        if each and self.plain:
            raise ValueError(f"--plain has no stages: give {flag.removesuffix('-each')} instead of {flag}")
        if each and len(each) != len(portions):
            raise ValueError(
                f"{flag} must have one number for each of the {len(portions)} stages of --iterative-steps "
                f"{' '.join(f'{portion:g}' for portion in portions)}, got {len(each)}: "
                f"{' '.join(f'{number:g}' for number in each)}"
            )

    @property
    def stage_epochs(self) -> tuple[int, ...]:
        """Epochs of each stage; none of a plain run."""
        num_stages = 0 if self.plain else len(self.quantization.iterative_steps)
        total = self.training.epochs_total
        if self.training.epochs_each:
            return self.training.epochs_each
        if total is None:
            return (self.training.epochs,) * num_stages
        return tuple(total // num_stages + (stage < total % num_stages) for stage in range(num_stages))

    @property
    def float_epochs(self) -> int:
        """Epochs of training before the first stage; of all training of a plain run."""
        return self.training.epochs if self.plain else self.training.float_epochs

    def lr_of(self, stage: int) -> float:
        """Learning rate with which a stage begins, 0 being the training before the first, or all of a plain run."""
        training = self.training
        if stage == 0:
            return training.lr if self.plain else training.float_lr
        return training.lr_each[stage - 1] if training.lr_each else training.lr

    def replace(self, **sections: dict[str, Any]) -> "RunConfig":
        """A copy with fields of sections changed: ``config.replace(training={"lr": 0.1})``."""
        changed = {name: dataclasses.replace(getattr(self, name), **fields) for name, fields in sections.items()}
        return dataclasses.replace(self, **changed)

    def to_json(self) -> str:
        """The configuration as JSON text that :meth:`from_json` reads back equal."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "RunConfig":
        """Reads what :meth:`to_json` wrote; what is left out has its default.

        Raises:
            ValueError: the text is no JSON, or has names or values that are not allowed; names them.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:  # nested too deep; a number of thousands of digits
            raise ValueError(f"the configuration is not JSON: {error}") from None
        config = _from_dict(cls, values, where="")
        assert isinstance(config, cls)
        return config

    @classmethod
    def from_file(cls, path: str) -> "RunConfig":
        """Reads a file of :meth:`to_json`.

        Raises:
            ValueError: the file cannot be read, or what it says is not allowed; names the file.
        """
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise ValueError(f"--config {path}: {error}") from None


def field_value(name: str, value: Any) -> Any:
    """A value of a field of :class:`RunConfig`, as JSON would have it, of the field's own type.

    Args:
        name: dotted, of a field that exists, such as "training.lr".
        value: a list, too, where the field holds a tuple.

    Raises:
        ValueError: the field holds something else; what its section allows is not looked at.
    """
    return _checked(name, list(value) if isinstance(value, tuple) else value, field_type(name))


def field_type(name: str) -> Any:
    """The annotation of a field of :class:`RunConfig` by its dotted name."""
    section, _, inner = name.partition(".")
    kinds = {item.name: item.type for item in dataclasses.fields(RunConfig)}
    cls: Any = kinds[section]
    return {item.name: item.type for item in dataclasses.fields(cls)}[inner]


def _from_dict(cls: type[Any], values: Any, *, where: str) -> Any:
    """An instance of a dataclass from JSON values of the same names; types are checked, not converted."""
    if not isinstance(values, dict):
        what = where.removesuffix(".") or "the configuration"
        raise ValueError(f"{what} must be an object of names and values, got {_short(values)}")
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5) or list(fields)
            raise ValueError(f"{_short(where + name)} is unknown; nearest: {', '.join(where + name for name in near)}")
    arguments = {}
    for name, value in values.items():
        kind: Any = fields[name].type
        if dataclasses.is_dataclass(kind):
            arguments[name] = _from_dict(kind, value, where=f"{name}.")  # type: ignore[arg-type]
        else:
            arguments[name] = _checked(f"{where}{name}", value, kind)
    return cls(**arguments)


def _checked(name: str, value: Any, kind: Any) -> Any:
    """A JSON value as the field's type: tuples come from arrays, floats from whole numbers too."""
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        if isinstance(value, list) and all(_is_a(entry, element) for entry in value):
            return tuple(map(element, value))
    elif _is_a(value, kind):
        return float(value) if kind in (float, float | None) and value is not None else value
    elif typing.get_origin(kind) is Literal:
        raise ValueError(f"{name} must be one of {', '.join(kind.__args__)}, got {_short(value)}")
    raise ValueError(f"{name} must be {_IN_WORDS[kind]}, got {_short(value)}")


_IN_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    str | None: "a text or null",
    int | None: "a whole number or null",
    int | str: "a whole number or a text",
    float | None: "a number or null",
    tuple[float, ...]: "a list of numbers",
    tuple[int, ...]: "a list of whole numbers",
    tuple[str, ...]: "a list of texts",
}


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of a field's type; of a choice it has to be text, its section looks further."""
    if kind is float:
        return type(value) is float or (type(value) is int and abs(value) <= 2**53)
    if isinstance(kind, types.UnionType):
        return any(_is_a(value, option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return isinstance(value, str)
    return type(value) is kind


def _short(value: Any) -> str:
    """For a message; a thousand digits make no clear line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@contextlib.contextmanager
def _named(flag: str) -> Iterator[None]:
    """Puts the flag before what a check says."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from None


def _check_time(flag: str, value: str) -> None:
    if not _TIME.fullmatch(value):
        raise ValueError(f"{flag} must be a time such as 30s, 10m or 2h, got {value[:80]!r}")


def _seconds(time: str) -> int:
    return int(time[:-1]) * {"s": 1, "m": 60, "h": 3600}[time[-1]]


def _check_at_least(flag: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{flag} must be at least {least}, got {value}")


def _check_choice(flag: str, value: str, choices: Any) -> None:
    if value not in choices.__args__:
        raise ValueError(f"{flag} must be one of {', '.join(choices.__args__)}, got {value!r}")
