"""What a trial reports to its sweep."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from inq_ray.sweep.reuse.keys import stage_end
from inq_ray.training.config import RunConfig
from inq_ray.training.report.events import Row

How = Literal["trained", "reused", "given"]


@dataclass(frozen=True, kw_only=True)
class End:
    """The end of a stage that a trial has passed.

    Attributes:
        stage: 0 before the first.
        portion: accumulated fraction that is frozen.
        top1: in percent.
        seconds: of training and validation in the stage, by whoever trained it.
        how: trained by this trial, reused from another one's, or given (the weights that it starts with).
    """

    stage: int
    portion: float
    top1: float
    seconds: float
    how: How


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A trial has begun, or goes on.

    Attributes:
        ends: the stage ends that lie behind it.
        damaged: keys of stored ends that it found damaged.
    """

    ends: tuple[End, ...]
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """A trial has passed the end of a stage.

    Attributes:
        end: the end.
    """

    end: End


@dataclass(frozen=True)
class Stored:
    """A trial has stored the end of a stage for others, or could not.

    Attributes:
        key: of the end.
        reason: why it could not; None where it has.
    """

    key: str
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Done:
    """A trial has come to its end.

    Attributes:
        top1: of the result, in percent.
        digest: of the result.
    """

    top1: float
    digest: str


@dataclass(frozen=True)
class Failed:
    """A trial has failed, and trying again would not help.

    Attributes:
        reason: one line.
    """

    reason: str


@dataclass(frozen=True)
class Refused:
    """A trial did not go on from the accuracy of the given weights; nothing is frozen.

    Attributes:
        reason: one line.
    """

    reason: str


@dataclass(frozen=True)
class TrialRetryable:
    """A trial has failed, and may be started again.

    Attributes:
        reason: one line.
    """

    reason: str


Report = Begun | Ended | Stored | Done | Failed | Refused | TrialRetryable


def ends_of(config: RunConfig, rows: Iterable[Row], how: How) -> list[End]:
    """The stage ends that a run has passed, by its metrics so far.

    Args:
        config: of the run.
        rows: in order; of an epoch that was trained twice, after an interruption, the later one counts.
        how: how it came to them.
    """
    stages: dict[int, dict[int, Row]] = {}
    for row in rows:
        stages.setdefault(row.stage, {})[row.epoch] = row
    found = []
    for stage, epochs in sorted(stages.items()):
        last = epochs.get(stage_end(config, stage))
        if last is not None:
            seconds = sum((row.train_seconds or 0.0) + row.validation_seconds for row in epochs.values())
            is_given = stage == 0 and not config.float_epochs
            came = "given" if is_given else how
            found.append(End(stage=stage, portion=last.portion, top1=last.top1, seconds=seconds, how=came))
    return found
