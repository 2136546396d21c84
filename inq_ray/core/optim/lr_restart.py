"""Restart of a learning rate schedule."""

from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler, ReduceLROnPlateau, SequentialLR

from inq_ray.core.optim.sgd import MOST_WRAPPERS


def reset_lr_scheduler(scheduler: LRScheduler) -> None:
    """Restart a torch learning rate schedule, for the re-training of each stage.

    Afterwards learning rates and schedule are as if the scheduler had just been created.

    Args:
        scheduler: Any scheduler of torch.optim.lr_scheduler, including chained and sequential ones; or a trainer's
            wrapper with it as its attribute ``scheduler``.

    Raises:
        ValueError: It is not a torch scheduler, such as timm's; or a group has no "initial_lr": ReduceLROnPlateau sets
            none, and other schedulers none for a group added later.

    Examples:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        >>> optimizer.step()
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.05]
        >>> reset_lr_scheduler(scheduler)
        >>> scheduler.get_last_lr()
        [0.1]
    """
    scheduler = _unwrapped(scheduler)
    unknown = [index for index, group in enumerate(scheduler.optimizer.param_groups) if "initial_lr" not in group]
    if unknown:
        raise ValueError(
            f"group {unknown[0]} of the optimizer has no 'initial_lr': {type(scheduler).__name__} sets none, or the "
            f"group was added after the scheduler was created; set optimizer.param_groups[{unknown[0]}]['initial_lr']"
        )
    _set_initial_lr(scheduler)
    _construct(scheduler)


def _unwrapped(scheduler: object) -> Any:
    """Return torch's scheduler itself, or the one inside a trainer's wrapper."""
    inner, seen = scheduler, 0
    while not isinstance(inner, LRScheduler) and hasattr(inner, "scheduler") and seen < MOST_WRAPPERS:
        inner, seen = inner.scheduler, seen + 1
    if not isinstance(inner, LRScheduler):
        kind = f"{type(scheduler).__module__}.{type(scheduler).__qualname__}"
        raise ValueError(
            f"reset_lr_scheduler takes a scheduler of torch.optim.lr_scheduler, or a wrapper with one as its attribute "
            f"'scheduler', got {kind}: for timm's call scheduler.step(0) at each stage; create others again"
        )
    return inner


def _set_initial_lr(scheduler: LRScheduler) -> None:
    for group in scheduler.optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(group["initial_lr"])
        else:
            group["lr"] = group["initial_lr"]


def _construct(scheduler: Any) -> None:
    """Repeat what the constructor does; torch has no public function for this."""
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler._reset()  # noqa: SLF001
        scheduler.last_epoch = 0
        rates = [group["lr"] for group in scheduler.optimizer.param_groups]
        scheduler._last_lr = [rate.clone() if isinstance(rate, Tensor) else rate for rate in rates]  # noqa: SLF001
        return
    parts: list[Any] = getattr(scheduler, "_schedulers", [])
    for part in parts:
        _construct(part)
    if isinstance(scheduler, ChainedScheduler):
        scheduler._last_lr = parts[-1].get_last_lr()  # noqa: SLF001
    elif isinstance(scheduler, SequentialLR):
        # Of the parts' first steps only the first part's counts.
        scheduler.last_epoch = 0
        _set_initial_lr(scheduler)
        scheduler.recursive_undo()
        parts[0]._initial_step()  # noqa: SLF001
        scheduler._last_lr = parts[0].get_last_lr()  # noqa: SLF001
    else:
        scheduler.last_epoch = -1
        scheduler._initial_step()  # noqa: SLF001
