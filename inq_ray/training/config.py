"""The configuration of a run: frozen values, checked when made, that JSON keeps word for word."""

import contextlib
import dataclasses
import difflib
import json
import math
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from inq_ray.core.codebook import check_num_bits
from inq_ray.core.partition import Strategy, check_strategy
from inq_ray.core.portions import check_portions

LrSchedule = Literal["cosine", "step", "constant"]
Precision = Literal["auto", "float32", "bf16", "fp16"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained and tested on."""

    data: str = "digits"
    """"digits" (handwritten digits of scikit-learn), or a folder or file of Parquet in Hugging Face's layout."""
    holdout: int = 0
    """Training images to hold out and to validate on instead of the test set, for choosing hyperparameters."""

    def __post_init__(self) -> None:
        _check_at_least("--holdout", self.holdout, 0)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The network."""

    arch: str = "digits_cnn"
    """A classification network of torchvision, cifar_resnet20, 32, 44, 56 or 110, or digits_cnn."""
    weights: str | None = None
    """File of trained weights: .safetensors, or a state dict of torch (.pth), which is read without unpickling code."""


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """What becomes of the weights."""

    weight_bits: int = 5
    """Bits of a weight, 2 to 8."""
    iterative_steps: tuple[float, ...] = (0.5, 0.75, 0.875, 1.0)
    """Accumulated portions of each tensor that are frozen after each stage; they rise and end at 1."""
    strategy: Strategy = "pruning"
    """Which weights freeze first: "pruning" the largest, "random" any."""
    skip: tuple[str, ...] = ()
    """Patterns of layers that stay float, such as classifier or layer1.*."""

    def __post_init__(self) -> None:
        with _named("--weight-bits"):
            check_num_bits(self.weight_bits)
        with _named("--iterative-steps"):
            object.__setattr__(self, "iterative_steps", check_portions(self.iterative_steps, complete=True))
        with _named("--strategy"):
            check_strategy(self.strategy)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How it is trained, before the first stage and in each stage."""

    epochs: int = 4
    """Epochs of re-training per stage (of training in all with --plain)."""
    float_epochs: int = 0
    """Epochs of plain training before the first stage, for a network that comes without trained weights."""
    batch_size: int = 256
    """Images a step over all workers together (global)."""
    accumulate: int = 1
    """Parts in which a worker computes its share of a step, one after the other, to save memory."""
    lr: float = 0.001
    """Learning rate at the start of each stage."""
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

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("--epochs", self.epochs, 0),
            ("--float-epochs", self.float_epochs, 0),
            ("--batch-size", self.batch_size, 1),
            ("--accumulate", self.accumulate, 1),
            ("--seed", self.seed, 0),
        ):
            _check_at_least(flag, value, least)
        if self.seed >= 2**63:
            raise ValueError(f"--seed must be below 2^63, got {self.seed}")
        for flag, rate in (("--lr", self.lr), ("--float-lr", self.float_lr), ("--lr-step-epochs", self.lr_step_epochs)):
            if not (math.isfinite(rate) and rate > 0):
                raise ValueError(f"{flag} must be above 0, got {rate}")
        for flag, rate in (("--weight-decay", self.weight_decay), ("--warmup-epochs", self.warmup_epochs)):
            if not (math.isfinite(rate) and rate >= 0):
                raise ValueError(f"{flag} must be 0 or above, got {rate}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"--momentum must be in [0, 1), got {self.momentum}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("--nesterov needs a --momentum above 0")
        if not 0 < self.lr_gamma <= 1:
            raise ValueError(f"--lr-gamma must be in (0, 1], got {self.lr_gamma}")
        _check_choice("--lr-schedule", self.lr_schedule, LrSchedule)
        _check_choice("--precision", self.precision, Precision)


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where it runs."""

    num_workers: int = 2
    """Processes that train together, one a GPU or CPU slot."""
    use_gpu: bool = False
    """Give each worker a GPU."""
    cpus_per_worker: int = 1
    """CPU cores, and threads, of a worker."""

    def __post_init__(self) -> None:
        _check_at_least("--num-workers", self.num_workers, 1)
        _check_at_least("--cpus-per-worker", self.cpus_per_worker, 1)


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where the result goes."""

    storage_path: str = "runs"
    """Folder of all runs; with several nodes one that all of them see."""
    name: str | None = None
    """Name of the run and of its folder; by default network, bits and time."""
    overwrite: bool = False
    """Delete an earlier run of the same name."""

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
        if training.batch_size < self.cluster.num_workers * training.accumulate:
            raise ValueError(
                f"--batch-size {training.batch_size} (global) is too small for {self.cluster.num_workers} workers and "
                f"--accumulate {training.accumulate}: take at least {self.cluster.num_workers * training.accumulate}"
            )
        if self.plain and training.float_epochs:
            raise ValueError(f"--plain trains for --epochs: set --float-epochs 0, got {training.float_epochs}")
        if self.plain and training.epochs == 0:
            raise ValueError("--plain needs --epochs of at least 1, got 0")

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
        return float(value) if kind is float else value
    elif typing.get_origin(kind) is Literal:
        raise ValueError(f"{name} must be one of {', '.join(kind.__args__)}, got {_short(value)}")
    raise ValueError(f"{name} must be {_IN_WORDS[kind]}, got {_short(value)}")


_IN_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    str | None: "a text or null",
    tuple[float, ...]: "a list of numbers",
    tuple[str, ...]: "a list of texts",
}


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of a field's type; of a choice it has to be text, its section looks further."""
    if kind is float:
        return type(value) is float or (type(value) is int and abs(value) <= 2**53)
    if kind == str | None:
        return value is None or isinstance(value, str)
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


def _check_at_least(flag: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{flag} must be at least {least}, got {value}")


def _check_choice(flag: str, value: str, choices: Any) -> None:
    if value not in choices.__args__:
        raise ValueError(f"{flag} must be one of {', '.join(choices.__args__)}, got {value!r}")
