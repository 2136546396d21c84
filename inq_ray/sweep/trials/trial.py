"""A trial of a sweep: its definition and its progress."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from inq_ray.sweep.reuse.shared_prefixes import Keys
from inq_ray.sweep.space.space import BITS, LAYER_BITS, Point
from inq_ray.sweep.trials.report import End, How
from inq_ray.training.config import RunConfig

Status = Literal["waiting", "running", "done", "stopped", "failed"]


@dataclass
class Trial:
    """A trial, as the sweep knows it.

    Attributes:
        name: Name of the trial and its run.
        number: Index of its point, in the order of proposals.
        point: Values that distinguish it from others.
        config: Configuration of its run.
        keys: Keys of its stage ends by stage, without the last one's; empty without reuse.
        status: Waiting to start, running, done, stopped early, or failed.
        ends: Ends that it has passed, in order.
        top1: Accuracy of its result, in percent.
        digest: Digest of its result.
        reason: Why it was stopped or failed.
        claims: Keys that it is training, and others wait for.
        has_begun: Whether it no longer needs a stored end.
        first_keys: Its keys when it was first started; None if it never was.
    """

    name: str
    number: int
    point: Point
    config: RunConfig
    keys: Mapping[int, str]
    status: Status = "waiting"
    ends: list[End] = field(default_factory=list)
    top1: float | None = None
    digest: str | None = None
    reason: str | None = None
    claims: set[str] = field(default_factory=set)
    has_begun: bool = False
    first_keys: Mapping[int, str] | None = None

    @property
    def chain(self) -> Keys:
        """Its keys, first to last."""
        return tuple(self.keys.values())

    @property
    def bits(self) -> int:
        """Bits per weight."""
        return self.config.quantization.weight_bits

    @property
    def all_bits(self) -> tuple[int, tuple[str, ...]]:
        """Bits per weight, and those of single layers."""
        return self.bits, self.config.quantization.layer_bits

    @property
    def schedule(self) -> tuple[float, ...]:
        """Portions of its stages."""
        return self.config.quantization.iterative_steps

    @property
    def curve(self) -> list[tuple[float, float]]:
        """(portion, top-1) at each end."""
        return [(end.portion, end.top1) for end in self.ends]

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.status in ("done", "stopped", "failed")

    def count(self, how: How) -> int:
        """Return the number of stages that it has trained, or reused."""
        return sum(end.how == how for end in self.ends)

    def seconds(self, how: How) -> float:
        """Return the time that training those stages took, seconds."""
        return sum(end.seconds for end in self.ends if end.how == how)

    def pass_end(self, end: End) -> bool:
        """Add an end; return False if it was known."""
        if any(known.stage == end.stage for known in self.ends):
            return False
        self.ends = sorted([*self.ends, end], key=lambda each: each.stage)
        return True

    def to_json(self) -> dict[str, Any]:
        """Return its part of sweep.json; keys and configuration follow from the point."""
        return {
            "name": self.name,
            "number": self.number,
            "point": self.point,
            "schedule": list(self.schedule),
            "weight_bits": self.bits,
            "status": self.status,
            "ends": [dataclasses.asdict(end) for end in self.ends],
            "top1": self.top1,
            "digest": self.digest,
            "reason": self.reason,
            "first_keys": self.first_keys,
        }

    def remember(self, values: Mapping[str, Any]) -> None:
        """Restore the values of :meth:`to_json`. Trials that were running, or failed, wait to be continued.

        If its keys have changed, such as with another version of the program, its checkpoints match neither version:
        its stages are then not stored for others.
        """
        first = values.get("first_keys")
        self.first_keys = None if first is None else {int(stage): key for stage, key in first.items()}
        if self.first_keys is not None and self.first_keys != self.keys:
            self.keys = {}
        self.status = values["status"]
        self.ends = [End(**end) for end in values["ends"]]
        self.top1, self.digest, self.reason = values["top1"], values["digest"], values["reason"]
        if self.status in ("running", "failed"):
            self.status, self.reason = "waiting", None


def objectives(trial: Trial, *, has_bits: bool) -> list[float] | None:
    """Return a trial's values for a search algorithm: accuracy, and bits if they count; None without a result."""
    if trial.top1 is None or not math.isfinite(trial.top1):
        return None
    return [trial.top1, float(trial.bits)] if has_bits else [trial.top1]


def describe(point: Point) -> dict[str, str]:
    """Return a point in words, by short names: {"lr": "0.01"}."""
    return {short(name): in_words(value) for name, value in point.items()}


def short(name: str) -> str:
    """Return the last part of a field's dotted name."""
    return name.rpartition(".")[2]


def in_words(value: Any) -> str:
    """Return a value of a point as it is typed."""
    if isinstance(value, tuple | list):
        return ",".join(map(in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def has_bits(points: Iterable[Point]) -> bool:
    """Return whether the number of bits is searched, and is that of the whole network."""
    return any(BITS in point and LAYER_BITS not in point for point in points)
