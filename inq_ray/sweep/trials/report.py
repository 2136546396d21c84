"""Reports of a trial to its sweep."""

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
        portion: Accumulated fraction of frozen weights.
        top1: Accuracy in percent.
        seconds: Time of training and validation in the stage, in the trial that trained it.
        how: Trained by this trial, reused from another one, or given (the initial weights).
    """

    stage: int
    portion: float
    top1: float
    seconds: float
    how: How


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A trial has begun, or continues.

    Attributes:
        ends: Stage ends that it has passed.
        damaged: Keys of stored ends that it found damaged.
    """

    ends: tuple[End, ...]
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """A trial has passed the end of a stage.

    Attributes:
        end: The end.
    """

    end: End


@dataclass(frozen=True)
class Stored:
    """A trial has stored the end of a stage for others, or failed to.

    Attributes:
        key: Key of the end.
        reason: Why it failed; None if it succeeded.
    """

    key: str
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Done:
    """A trial has finished.

    Attributes:
        top1: Accuracy of the result, in percent.
        digest: Digest of the result.
    """

    top1: float
    digest: str


@dataclass(frozen=True)
class Failed:
    """A trial has failed, and a retry would not help.

    Attributes:
        reason: One line.
    """

    reason: str


@dataclass(frozen=True)
class Refused:
    """A trial was refused for the accuracy of the given weights; nothing is frozen.

    Attributes:
        reason: One line.
    """

    reason: str


@dataclass(frozen=True)
class TrialRetryable:
    """A trial has failed, and may be retried.

    Attributes:
        reason: One line.
    """

    reason: str


Report = Begun | Ended | Stored | Done | Failed | Refused | TrialRetryable


def ends_of(config: RunConfig, rows: Iterable[Row], how: How) -> list[End]:
    """Return the stage ends that a run has passed, by its metrics so far.

    Args:
        config: Configuration of the run.
        rows: Metrics in order; if an epoch was trained twice, after an interruption, the later row counts.
        how: How it reached them.
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
