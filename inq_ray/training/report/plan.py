"""Plan of a run: stages, steps, and an estimate of the time."""

import os
import time
from dataclasses import dataclass

import torch
from torch import nn

from inq_ray.core.portions import num_frozen
from inq_ray.data.image_set import SourceInfo
from inq_ray.data.loader import VALIDATION_BATCH
from inq_ray.training.config import ClusterConfig, RunConfig, TrainingConfig
from inq_ray.training.evaluation.batchnorm import images_of_estimate
from inq_ray.training.loop.batches import steps_of_epoch
from inq_ray.training.task.build import batchnorm_layers
from inq_ray.training.task.groups import groups_of

# Enough to use a CPU fully, and no more than it computes within seconds.
_TIMED_IMAGES = 8


@dataclass(frozen=True, kw_only=True)
class PlannedPhase:
    """A phase: 0 is the float training, the others are stages.

    Attributes:
        stage: 0, or the stage from 1.
        portion: Accumulated fraction of frozen weights.
        num_frozen: Number of frozen weights, over all tensors.
        epochs: Epochs of training.
        lr: Initial learning rate; None if --lr-probe finds it.
        steps: Optimizer steps.
    """

    stage: int
    portion: float
    num_frozen: int
    epochs: int
    lr: float | None
    steps: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do, in counts; ``seconds_per_step`` was measured on this machine, None if this was not possible.

    ``num_batchnorm`` is the number of images for estimating BatchNorm statistics at the end, 0 if there is no estimate.
    """

    phases: tuple[PlannedPhase, ...]
    num_parameters: int
    num_quantized: int
    num_tensors: int
    num_train: int
    num_validation: int
    num_batchnorm: int
    seconds_per_step: float | None

    @property
    def seconds(self) -> float | None:
        """Return the estimated time of training, without validation and startup."""
        if self.seconds_per_step is None:
            return None
        return self.seconds_per_step * sum(phase.steps for phase in self.phases)


def plan(config: RunConfig, info: SourceInfo, model: nn.Module) -> Plan:
    """Return the plan of a configuration that passed :func:`inq_ray.training.task.check.check`.

    Args:
        config: The configuration.
        info: Facts about its data.
        model: Its network, on the CPU.
    """
    training, num_held_out = config.training, config.data.holdout
    num_train = info.num_train - num_held_out
    steps = steps_of_epoch(num_train, training)
    num_validation = num_held_out or info.num_test
    quantized = [
        p.numel() for group in groups_of(model, config) if group["weight_bits"] is not None for _, p in group["params"]
    ]
    portions = (0.0, *(() if config.plain else config.quantization.iterative_steps))
    phases = [
        PlannedPhase(
            stage=stage,
            portion=portion,
            num_frozen=sum(num_frozen(portion, count) for count in quantized),
            epochs=epochs,
            lr=None if stage and training.lr_probe and not training.lr_each else config.lr_of(stage),
            steps=epochs * steps,
        )
        for stage, (portion, epochs) in enumerate(zip(portions, config.phase_epochs, strict=True))
        if stage or epochs
    ]
    crop_size = config.data.train_crop_size if info.is_streamed else None
    return Plan(
        phases=tuple(phases),
        num_parameters=sum(param.numel() for param in model.parameters()),
        num_quantized=sum(quantized),
        num_tensors=len(quantized),
        num_train=num_train,
        num_batchnorm=images_of_estimate(training, steps, config.cluster.workers.most)
        if batchnorm_layers(model)
        else 0,
        num_validation=min(num_validation, VALIDATION_BATCH * (training.limit_batches or num_validation)),
        seconds_per_step=_seconds_per_step(
            model,
            (info.channels, *((crop_size,) * 2 if crop_size else (info.height, info.width))),
            training,
            config.cluster,
        ),
    )


def _seconds_per_step(
    model: nn.Module, shape: tuple[int, ...], training: TrainingConfig, cluster: ClusterConfig
) -> float | None:
    """Time one worker's shard of a step with its threads, on CPUs a part of it; the second of two tries counts.

    Args:
        model: The network.
        shape: Channels, height and width of an image.
        training: Batch size, microbatches and memory format.
        cluster: Devices, threads and number of workers.

    Returns:
        Seconds, None if the GPUs are on other machines.
    """
    if cluster.use_gpu and not torch.cuda.is_available():
        return None
    device = torch.device("cuda" if cluster.use_gpu else "cpu")
    memory_format = torch.channels_last if training.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=memory_format).train()  # type: ignore[call-overload]
    shard = -(-training.batch_size // cluster.workers.most // training.accumulate)
    num_images = shard if cluster.use_gpu else min(shard, _TIMED_IMAGES)
    images = torch.rand(num_images, *shape, device=device).contiguous(memory_format=memory_format)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(min(cluster.cpus_per_worker, os.cpu_count() or 1))
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        model(images).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    torch.set_num_threads(num_threads)
    model.zero_grad(set_to_none=True)
    return seconds * training.accumulate * shard / num_images
