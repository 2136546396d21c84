"""The configuration of a run."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inq_ray.files.shown import counted, shown
from inq_ray.models.layer_bits import parse_layer_bits
from inq_ray.training.config.cluster import ClusterConfig
from inq_ray.training.config.data import DataConfig
from inq_ray.training.config.json_values import checked, from_dict
from inq_ray.training.config.network import NetworkConfig
from inq_ray.training.config.option import Phase, check_refused, declared, option
from inq_ray.training.config.output import OutputConfig
from inq_ray.training.config.quantization import QuantizationConfig
from inq_ray.training.config.training import EpochsSpread, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a run."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    plain: bool = option(False, "Train the network without quantizing anything.", phase=Phase.TRAINING, sweep=False)

    def __post_init__(self) -> None:
        check_refused(self)
        training, most = self.training, self.cluster.workers.most
        if training.batch_size < most * training.accumulate:
            raise ValueError(
                f"--batch-size {training.batch_size} (global) is too small for {counted(most, 'worker')} and "
                f"--accumulate {training.accumulate}: use at least {most * training.accumulate}"
            )
        if self.plain:
            self._check_plain()
        self._check_spread()
        for flag, each in (("--epochs-each", training.epochs_each), ("--lr-each", training.lr_each)):
            self._check_one_a_stage(flag, each)
        if training.precision == "fp16" and not self.cluster.use_gpu:
            raise ValueError("--precision fp16 needs --use-gpu: use float32 or bf16 on CPUs")
        if training.cuda_graphs:
            self._check_graphs()
        if self.data.jpeg_decoder == "nvjpeg":
            self._check_nvjpeg()
        if training.sync_batchnorm and not self.cluster.use_gpu:
            raise ValueError("--sync-batchnorm needs --use-gpu: torch supports it on GPUs only")

    def _check_plain(self) -> None:
        training = self.training
        if training.float_epochs:
            raise ValueError(f"--plain trains for --epochs: set --float-epochs 0, got {training.float_epochs}")
        if training.epochs == 0:
            raise ValueError("--plain needs --epochs of at least 1, got 0")
        if training.epochs_total is not None:
            raise ValueError("--plain has no stages: use --epochs instead of --epochs-total")
        if training.distill:
            raise ValueError("--plain has no stages to --distill: leave one of them out")
        if training.bn_images:
            raise ValueError("--plain has no stages, after which --bn-images applies: leave one of them out")

    def _check_graphs(self) -> None:
        training, workers = self.training, self.cluster.workers
        if not self.cluster.use_gpu:
            raise ValueError("--cuda-graphs needs --use-gpu: leave it out on CPUs")
        if workers.most > 1:
            raise ValueError(f"--cuda-graphs works with one worker, got --num-workers {workers}: leave one of them out")
        for flag, is_set in (
            ("--compile", training.compile),
            ("--accumulate", training.accumulate > 1),
            ("--precision fp16", training.precision == "fp16"),
        ):
            if is_set:
                raise ValueError(f"--cuda-graphs does not work with {flag}: leave one of them out")

    def _check_nvjpeg(self) -> None:
        if not self.cluster.use_gpu:
            raise ValueError("--jpeg-decoder nvjpeg needs --use-gpu: use cpu on CPUs")
        data = self.data
        for flag, is_set in (
            ("--auto-augment", data.auto_augment != "none"),
            ("--random-erasing", data.random_erasing > 0),
        ):
            if is_set:
                raise ValueError(
                    f"--jpeg-decoder nvjpeg does not work with {flag}, which changes images one by one on the CPU: "
                    "leave one of them out"
                )

    def _check_spread(self) -> None:
        total, num_stages = self.training.epochs_total, len(self.quantization.iterative_steps)
        if self.training.epochs_spread == "late" and total is not None and not self.plain and total < num_stages:
            raise ValueError(
                f"--epochs-total {total} is too few for {counted(num_stages, 'stage')}, each with an epoch or more: "
                f"use at least {num_stages}, or fewer stages with --iterative-steps"
            )

    def _check_one_a_stage(self, flag: str, each: tuple[float, ...]) -> None:
        portions = self.quantization.iterative_steps
        if each and self.plain:
            raise ValueError(f"--plain has no stages: use {flag.removesuffix('-each')} instead of {flag}")
        if each and len(each) != len(portions):
            raise ValueError(
                f"{flag} must have one number for each of the {len(portions)} stages of --iterative-steps "
                f"{shown(' '.join(f'{portion:g}' for portion in portions))}, got {len(each)}: "
                f"{shown(' '.join(f'{number:g}' for number in each))}"
            )

    @property
    def num_bits(self) -> int | None:
        """Bits of a quantized weight; None for a plain run."""
        return None if self.plain else self.quantization.weight_bits

    @property
    def layer_bits(self) -> dict[str, int]:
        """Bits of single layers by pattern; empty for a plain run."""
        return {} if self.plain else parse_layer_bits(self.quantization.layer_bits)

    @property
    def stage_epochs(self) -> tuple[int, ...]:
        """Epochs of each stage; empty for a plain run."""
        num_stages = 0 if self.plain else len(self.quantization.iterative_steps)
        total = self.training.epochs_total
        if self.training.epochs_each:
            return self.training.epochs_each
        if total is None:
            return (self.training.epochs,) * num_stages
        return spread_epochs(total, num_stages, self.training.epochs_spread)

    @property
    def float_epochs(self) -> int:
        """Epochs of training before the first stage; of all training for a plain run."""
        return self.training.epochs if self.plain else self.training.float_epochs

    @property
    def phase_epochs(self) -> tuple[int, ...]:
        """Epochs of the training before the first stage, and of each stage."""
        return (self.float_epochs, *self.stage_epochs)

    def lr_of(self, stage: int) -> float:
        """Return the initial learning rate of a stage; 0 is the training before the first, or all of a plain run."""
        training = self.training
        if stage == 0:
            return training.lr if self.plain else training.float_lr
        return training.lr_each[stage - 1] if training.lr_each else training.lr

    def evenly(self) -> "RunConfig":
        """Return a copy without values per stage: all stages share the epochs, and begin at one rate."""
        each = self.training.epochs_each
        course: dict[str, Any] = {"epochs_each": (), "epochs_total": sum(each)} if each else {}
        return self.replace(training={**course, "lr_each": ()})

    def replace(self, **sections: dict[str, Any]) -> "RunConfig":
        """Return a copy with fields of sections changed: ``config.replace(training={"lr": 0.1})``."""
        changed = {name: dataclasses.replace(getattr(self, name), **fields) for name, fields in sections.items()}
        return dataclasses.replace(self, **changed)

    def to_json(self) -> str:
        """Return the configuration as JSON text, which :meth:`from_json` reads back equal."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "RunConfig":
        """Read the text of :meth:`to_json`; missing values have their defaults.

        Raises:
            ValueError: The text is not JSON, or has names or values that are not allowed; names them.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:  # nested too deeply; a number of thousands of digits
            raise ValueError(f"the configuration is not JSON: {error}") from None
        config = from_dict(cls, values, where="")
        assert isinstance(config, cls)
        return config

    @classmethod
    def from_file(cls, path: str) -> "RunConfig":
        """Read a file of :meth:`to_json`.

        Raises:
            ValueError: The file cannot be read, or its contents are not allowed; names the file.
        """
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"--config {shown(path)}: {shown(reason, 150)}; pass the config.json of a run") from None


def spread_epochs(total: int, num_stages: int, spread: EpochsSpread) -> tuple[int, ...]:
    """Return the epochs of each stage, which add up to a total.

    Args:
        total: Epochs of all stages; at least one for each for "late".
        num_stages: Number of stages.
        spread: "even": as equal as possible, earlier stages first. "late": one for the last stage, in which nothing but
            biases and normalization is trained, and of the others in proportion to 1, 2, 3, ..., each at least one.
    """
    if spread == "even" or num_stages == 1:
        return tuple(total // num_stages + (stage < total % num_stages) for stage in range(num_stages))
    epochs = [1] * num_stages
    for _ in range(total - num_stages):  # to the stage that has least of its part; of equal ones to the later
        epochs[min(range(num_stages - 1), key=lambda stage: (epochs[stage] / (stage + 1), -stage))] += 1
    return tuple(epochs)


def field_value(name: str, value: Any) -> Any:
    """Return a JSON value of an option as the option's own type.

    Args:
        name: Dotted name of an existing option, such as "training.lr".
        value: The value; a list for an option that is a tuple.

    Raises:
        ValueError: The option has another type; its section's limits are not checked.
    """
    return checked(name, list(value) if isinstance(value, tuple) else value, field_type(name))


def field_type(name: str) -> Any:
    """Return the annotation of an option of :class:`RunConfig` by its dotted name."""
    return declared(RunConfig)[name].type
