"""Which checkpoints stay."""

from collections.abc import Collection
from dataclasses import dataclass

from inq_ray.training.checkpoint.position import TrainingPosition


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of a checkpoint without reading its tensors.

    Attributes:
        position: where it was taken; of one run no two are at the same.
        is_stage_end: whether the stage ends here.
        top1: accuracy in percent that was measured at this very position; None in the middle of an epoch.
        num_bytes: size of its files.
    """

    position: TrainingPosition
    is_stage_end: bool = False
    top1: float | None = None
    num_bytes: int = 0


def kept(entries: Collection[Entry], last: int) -> set[TrainingPosition]:
    """The positions whose checkpoints stay: the last ones, every stage's end, and the best one of the newest stage.

    The best is the one of highest top-1, of equal ones the later. It is looked for among the newest stage that has any
    accuracy: those of different portions do not compare, and a float network's would beat them all.

    Args:
        entries: whole checkpoints, in any order.
        last: how many of the newest stay, at least 1.
    """
    assert last >= 1, f"{last=}"
    newest_first = sorted((entry.position for entry in entries), reverse=True)
    keep = set(newest_first[:last]) | {entry.position for entry in entries if entry.is_stage_end}
    measured = [(entry.position.stage, entry.top1, entry.position) for entry in entries if entry.top1 is not None]
    if measured:
        keep.add(max(measured)[2])
    return keep
