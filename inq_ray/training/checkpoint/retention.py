"""Retention: which checkpoints are kept."""

from collections.abc import Collection
from dataclasses import dataclass

from inq_ray.training.checkpoint.position import TrainingPosition


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Facts about a checkpoint that need none of its tensors.

    Attributes:
        position: Position at which it was taken; unique within a run.
        is_stage_end: Whether the stage ends here.
        top1: Accuracy in percent measured at this very position; None within an epoch.
        num_bytes: Size of its files.
    """

    position: TrainingPosition
    is_stage_end: bool = False
    top1: float | None = None
    num_bytes: int = 0


def kept(entries: Collection[Entry], last: int) -> set[TrainingPosition]:
    """Return the positions of the checkpoints to keep: the last ones, every stage's end, and the newest stage's best.

    The best has the highest top-1; of equal ones the later. It is chosen in the newest stage that has any accuracy:
    accuracies at different portions are not comparable, and a float network's would beat them all.

    Args:
        entries: Complete checkpoints, in any order.
        last: Number of newest ones to keep, at least 1.
    """
    assert last >= 1, f"{last=}"
    newest_first = sorted((entry.position for entry in entries), reverse=True)
    keep = set(newest_first[:last]) | {entry.position for entry in entries if entry.is_stage_end}
    measured = [(entry.position.stage, entry.top1, entry.position) for entry in entries if entry.top1 is not None]
    if measured:
        keep.add(max(measured)[2])
    return keep
