"""Images in memory, kept on the GPU and augmented there; the bits of batches do not depend on it."""

import dataclasses

import torch

from inq_ray.data.loader import Loader
from inq_ray.data.memory_set import ImageSet
from inq_ray.training.task.build import Task

# Largest part of the GPU's free memory that images may take: training needs the rest.
_LARGEST_PART = 0.1


def keep_on_gpu(task: Task) -> tuple[Task, str | None]:
    """Return the task with its images on the GPU, if it has one and they can be there, and a line for the user.

    The line names where images are. It is None without a GPU, and for images that are read on demand.
    """
    device = task.to_input.device
    if device.type != "cuda" or _in_memory(task) is None:
        return task, None
    num_free, _ = torch.cuda.mem_get_info(device)
    return keep_on_device(task, num_free)


def keep_on_device(task: Task, num_free: int) -> tuple[Task, str]:
    """Return the task with its images, which are in memory, on the network's device, if that is possible.

    Args:
        task: Network and data.
        num_free: Free memory of the device, bytes.

    Returns:
        The task, and a line for the user: where images are, and why.
    """
    sets = _in_memory(task)
    assert sets is not None
    distinct = {id(each): each for each in sets.values()}  # with --holdout both are the same
    num_bytes = sum(each.num_bytes for each in distinct.values())
    size = f"{num_bytes / 1e6:,.0f} MB"
    reason = None
    if any(each.augmentation.changes_pixels for each in sets.values()):
        reason = "--auto-augment and --random-erasing change them there"
    elif task.loader.num_workers:
        reason = f"--loader-workers {task.loader.num_workers} read them"
    elif num_bytes > _LARGEST_PART * num_free:
        reason = f"their {size} are more than {_LARGEST_PART:.0%} of the {num_free / 1e6:,.0f} MB free on the GPU"
    if reason is not None:
        return task, f"images stay in the memory of the CPU: {reason}"
    moved = {key: each.to(task.to_input.device) for key, each in distinct.items()}
    loader = Loader({name: moved[id(each)] for name, each in sets.items()})
    return dataclasses.replace(task, loader=loader), f"images ({size}) are kept on the GPU, cropped and mirrored there"


def _in_memory(task: Task) -> dict[str, ImageSet] | None:
    """Return the sets, if all are in memory."""
    sets = {name: each for name, each in task.loader.sets.items() if isinstance(each, ImageSet)}
    return sets if len(sets) == len(task.loader.sets) else None
