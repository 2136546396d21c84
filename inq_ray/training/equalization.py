"""--equalize: the run's network, its channels scaled towards powers of two before the first stage."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from inq_ray.distributed.replica import broadcast_tensors
from inq_ray.models.equalize import equalize
from inq_ray.training.build import Task
from inq_ray.training.config import RunConfig


def equalize_channels(config: RunConfig, task: Task, groups: Iterable[Mapping[str, Any]]) -> int:
    """Scales channels; every rank calls it, and rank 0's network is everybody's.

    Args:
        config: of the run.
        task: its network is float, as it is before the first stage.
        groups: as :func:`inq_ray.models.selection.param_groups` makes them.

    Returns:
        The number of tensors whose channels are scaled.

    Raises:
        ValueError: the network would be another one afterwards.
    """
    info = task.info
    images = torch.randint(
        0, 256, (2, info.channels, info.height, info.width), dtype=torch.uint8, generator=torch.Generator()
    )
    try:
        names = equalize(task.model, groups, task.to_input(images), codebook=config.quantization.codebook)
    except ValueError as error:
        raise ValueError(f"--equalize: {error}") from None
    broadcast_tensors(task.model.state_dict())
    return len(names)
