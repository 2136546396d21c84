"""Accuracy of a task's network on its images to validate on."""

import torch

from inq_ray.data.loader import eval_requests
from inq_ray.distributed.replica import broadcast_tensors, rank, world_size
from inq_ray.training.accuracy import Accuracy
from inq_ray.training.bad_images import BadImages
from inq_ray.training.build import Task, build_task
from inq_ray.training.config import RunConfig
from inq_ray.training.determinism import set_deterministic
from inq_ray.training.evaluate import evaluate


def validate(task: Task, config: RunConfig, bad_images: BadImages) -> Accuracy:
    """Accuracy of the network as it is now; every rank calls it, its buffers the same on each.

    Args:
        task: network and data.
        config: of the run.
        bad_images: counts what cannot be read.

    Raises:
        ValueError: more images than allowed cannot be read, or none can.
    """
    requests = eval_requests(
        task.validation_indices, rank=rank(), world_size=world_size(), limit=config.training.limit_batches
    )
    return evaluate(task.model, task.loader.batches(requests), task.to_input, bad_images)


def evaluate_only(config: RunConfig, *, device: torch.device, fingerprint: str | None = None) -> Accuracy:
    """Accuracy of the network that a configuration names, untouched; every rank calls it.

    Args:
        config: checked by :func:`inq_ray.training.build.check`.
        device: of this rank.
        fingerprint: what the data must be, where that is known.

    Raises:
        ValueError: data or weights are not there on this machine, or images cannot be read.
    """
    set_deterministic()
    task = build_task(config, device, evaluate=True, fingerprint=fingerprint)
    broadcast_tensors(task.model.state_dict())
    return validate(task, config, BadImages(config.data.skip_bad_images))
