"""Distillation: stages are re-trained with the outputs of the float network, the teacher, as targets."""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inq_ray.data.image_set import SourceInfo
from inq_ray.distributed.replica import broadcast_tensors, on_rank_0
from inq_ray.files.shown import shown
from inq_ray.models.registry import create
from inq_ray.models.weights.files import WeightsError
from inq_ray.models.weights.load import load_weights
from inq_ray.models.weights.pretrained import resolve_weights
from inq_ray.training.config import TrainingConfig
from inq_ray.training.task.autocast_cache import Bf16Network
from inq_ray.training.task.build import Task, image_size_of


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A network that does not learn, and the weights of its loss.

    Attributes:
        model: Network in evaluation mode, without gradients.
        temperature: Divisor of both networks' logits.
        labels: Weight of the label loss, in [0, 1); the teacher's loss has the rest.
    """

    model: nn.Module
    temperature: float
    labels: float

    @functools.cached_property
    def _in_bf16(self) -> Bf16Network:
        """The network in bf16, made at the first call: by then a checkpoint has been loaded, if there is one."""
        return Bf16Network(self.model)

    def loss(self, inputs: Tensor, logits: Tensor, of_labels: Tensor) -> Tensor:
        """Return the loss of a part of a batch.

        Args:
            inputs: [N, C, H, W], the student's input.
            logits: [N, classes] of the student.
            of_labels: The student's label loss, summed over images.

        Returns:
            float32 scalar, summed over images.
        """
        # bf16 for any precision of the student: this rounds targets, never gradients.
        of_teacher = distillation_loss(logits, self._in_bf16(inputs), self.temperature)
        return of_teacher if self.labels == 0 else self.labels * of_labels + (1 - self.labels) * of_teacher


def distillation_loss(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return T² KL(softmax(targets / T) ‖ softmax(logits / T)), summed over images (Hinton et al., 2015, section 2).

    T² keeps the gradients as large as those of labels, at any temperature.

    Args:
        logits: float [N, classes] of the student.
        targets: float [N, classes] of the teacher.
        temperature: T, above 0.

    Returns:
        Scalar.
    """
    student = nn.functional.log_softmax(logits / temperature, dim=1)
    teacher = nn.functional.log_softmax(targets / temperature, dim=1)
    return temperature**2 * nn.functional.kl_div(student, teacher, reduction="sum", log_target=True)


def make_teacher(training: TrainingConfig, arch: str, task: Task) -> Teacher | None:
    """Return the teacher of a run's stages; every rank calls it and gets rank 0's.

    Args:
        training: --distill and its options.
        arch: Name of the network that is quantized.
        task: Network and data of the run. The network, float as before the first stage, is the teacher if --teacher
            names no weights.

    Returns:
        None without distillation.

    Raises:
        ValueError: The network or weights of --teacher-arch and --teacher do not exist or do not fit.
    """
    if not training.distill:
        return None
    if training.teacher is None:
        teacher = copy.deepcopy(task.model)
    else:
        teacher = load_teacher(training, arch, task.model, task.info)
        teacher = teacher.to(task.to_input.device, memory_format=task.to_input.memory_format)  # type: ignore[call-overload]
    broadcast_tensors(teacher.state_dict())
    return Teacher(
        model=teacher.requires_grad_(False).eval(),
        temperature=training.distill_temperature,
        labels=training.distill_labels,
    )


def load_teacher(
    training: TrainingConfig,
    arch: str,
    model: nn.Module,
    info: SourceInfo,
    tell: Callable[[str], None] = lambda _: None,
) -> nn.Module:
    """Return the network of --teacher-arch with the weights of --teacher. Random numbers are drawn as without it.

    Every rank calls it, but only rank 0 reads or downloads weights.

    Args:
        training: Options with a --teacher.
        arch: Name of the network that is quantized.
        model: That network.
        info: Facts about the data.
        tell: Called on rank 0 with a line about the tensors loaded from a file, if there was a choice.

    Raises:
        ValueError: Network or weights do not exist or do not fit; names the flag. Raised on every rank.
    """
    teacher = copy.deepcopy(model) if training.teacher_arch is None else _create(training, info)
    on_rank_0(lambda: _load_weights(teacher, training, arch, tell))
    return teacher


def _load_weights(teacher: nn.Module, training: TrainingConfig, arch: str, tell: Callable[[str], None]) -> None:
    """Load --teacher into the teacher."""
    try:
        path = resolve_weights(training.teacher_arch or arch, training.teacher)
        assert path is not None
        if note := load_weights(teacher, path).note:
            tell(f"--teacher: {note}")
    except WeightsError as error:  # its advice would be --replace-head, but a teacher needs a trained head
        raise ValueError(f"--teacher: {error.reason.replace('--arch', '--teacher-arch')}") from None
    except ValueError as error:
        raise ValueError(f"--teacher: {error}") from None


def _create(training: TrainingConfig, info: SourceInfo) -> nn.Module:
    """Return the network of --teacher-arch with random weights, on the CPU."""
    assert training.teacher_arch is not None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(training.seed)
            return create(
                training.teacher_arch,
                num_classes=info.num_classes,
                in_channels=info.channels,
                image_size=image_size_of(info),
            )
    except ValueError as error:
        raise ValueError(f"--teacher-arch: {shown(str(error).removeprefix('--arch '), 280)}") from None
