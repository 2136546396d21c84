"""Distillation: stages are re-trained towards what the float network, the teacher, says of each image."""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from inq_ray.distributed.replica import broadcast_tensors
from inq_ray.models.pretrained import resolve_weights
from inq_ray.models.weight_files import WeightsError
from inq_ray.models.weights import load_weights
from inq_ray.training.config import TrainingConfig
from inq_ray.training.task.autocast_cache import Bf16Network


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A network that does not learn, and how much of it is listened to.

    Attributes:
        model: in evaluation mode, its tensors without gradients.
        temperature: by which both networks' logits are divided.
        labels: weight of the labels' loss, in [0, 1); the teacher has the rest.
    """

    model: nn.Module
    temperature: float
    labels: float

    @functools.cached_property
    def _in_bf16(self) -> Bf16Network:
        """Made when it is first called: by then a checkpoint has been put into the model, if there was one."""
        return Bf16Network(self.model)

    def loss(self, inputs: Tensor, logits: Tensor, of_labels: Tensor) -> Tensor:
        """Return the loss of a part of a batch.

        Args:
            inputs: [N, C, H, W], as the student was given them.
            logits: [N, classes] of the student.
            of_labels: its loss by the labels, summed over images.

        Returns:
            float32 scalar, summed over images.
        """
        # bf16 whatever the student's precision is: a target is rounded, never a gradient.
        of_teacher = distillation_loss(logits, self._in_bf16(inputs), self.temperature)
        return of_teacher if self.labels == 0 else self.labels * of_labels + (1 - self.labels) * of_teacher


def distillation_loss(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """T² KL(softmax(targets / T) ‖ softmax(logits / T)), summed over images (Hinton et al., 2015, section 2).

    T² keeps gradients of the size that those of labels have, whatever the temperature.

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


def make_teacher(training: TrainingConfig, arch: str, model: nn.Module) -> Teacher | None:
    """Return the teacher of a run's stages; call it on every rank, rank 0's is everybody's.

    Args:
        training: --distill and its options.
        arch: Name of the network.
        model: The run's network, float as it is before the first stage: the teacher if --teacher names no file.

    Returns:
        None if nothing is distilled.

    Raises:
        ValueError: The weights that --teacher names do not exist or do not fit.
    """
    if not training.distill:
        return None
    teacher = copy.deepcopy(model)
    if training.teacher is not None:
        load_teacher(teacher, arch, training.teacher)
    broadcast_tensors(teacher.state_dict())
    return Teacher(
        model=teacher.requires_grad_(False).eval(),
        temperature=training.distill_temperature,
        labels=training.distill_labels,
    )


def load_teacher(model: nn.Module, arch: str, weights: str, tell: Callable[[str], None] = lambda _: None) -> None:
    """Load the weights that --teacher names; `tell` takes a line that says which of a file's tensors were taken.

    Raises:
        ValueError: They do not exist or do not fit; names the flag.
    """
    try:
        path = resolve_weights(arch, weights)
        assert path is not None
        if note := load_weights(model, path).note:
            tell(f"--teacher: {note}")
    except WeightsError as error:  # its advice would be --replace-head: a teacher with a fresh head knows nothing
        raise ValueError(f"--teacher: {error.reason}") from None
    except ValueError as error:
        raise ValueError(f"--teacher: {error}") from None
