"""Schedules: accumulated portions of a run's stages; parsing, generation and display."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from inq_ray.core.portions import check_portions

Rising = Literal["geometric", "linear"]
RisingOrFree = Literal[Rising, "free"]
Schedule = tuple[float, ...]

# Decimal digits of generated portions: few enough to type, and enough for any tensor.
_DIGITS = 4
_BARS = "▁▂▃▄▅▆▇█"


def parse_schedule(text: str) -> Schedule:
    """Parse portions such as "0.5,0.75,0.875,1"; spaces may replace commas.

    Raises:
        ValueError: They are not numbers, or do not ascend to 1.
    """
    try:
        portions = tuple(float(part) for part in re.split(r"\s*,\s*|\s+", text.strip()))
    except ValueError:
        raise ValueError(f"--schedules: {text!r} is not a list of portions, such as 0.5,0.75,0.875,1") from None
    try:
        return check_portions(portions, complete=True)
    except ValueError as error:
        hint = "" if len(portions) > 1 else "; separate the portions of a schedule by commas: 0.5,0.75,1"
        raise ValueError(f"--schedules: {error}{hint}") from None


def generated(num_stages: int, first: float, rising: Rising) -> Schedule:
    """Return the portions of a number of stages, from the first one to 1.

    Args:
        num_stages: At least 1.
        first: Portion of the first stage, in (0, 1); ignored for a single stage, whose portion is 1.
        rising: "geometric": each stage freezes the same fraction of the live weights, portion_k = 1 - (1 - first)^k,
            except the last, which freezes the rest. "linear": each stage after the first freezes the same number.

    Raises:
        ValueError: There is no such schedule, or its portions are too close to distinguish.
    """
    if num_stages < 1:
        raise ValueError(f"--num-stages must be at least 1, got {num_stages}")
    if not 0 < first < 1:
        raise ValueError(f"--first-portion must be in (0, 1), got {first}")
    if rising == "geometric":
        inner = [1 - (1 - first) ** stage for stage in range(1, num_stages)]
    else:
        step = (1 - first) / max(1, num_stages - 1)
        inner = [first + stage * step for stage in range(num_stages - 1)]
    portions = [*(round(portion, _DIGITS) for portion in inner), 1.0]
    if portions[0] <= 0 or any(after <= before for before, after in pairwise(portions)):
        raise ValueError(f"--num-stages {num_stages} from --first-portion {first}: portions would be too close")
    return tuple(portions)


def from_shares(shares: Sequence[float]) -> Schedule:
    """Return a freely rising schedule: stage k freezes ``shares[k]`` of the live weights, a last stage the rest.

    Shares are in (0, 1). Portions that do not differ in 4 digits are merged into one stage.
    """
    portions: list[float] = []
    live = 1.0
    for share in shares:
        live *= 1 - share
        portion = round(1 - live, _DIGITS)
        if portion > (portions[-1] if portions else 0.0):
            portions.append(portion)
    return (*(portion for portion in portions if portion < 1), 1.0)


def as_text(schedule: Sequence[float]) -> str:
    """Return the schedule as typed on a command line: 0.5,0.75,1."""
    return ",".join(f"{portion:.12g}" for portion in schedule)


def bar(schedule: Sequence[float]) -> str:
    """Return a small bar per stage: ▄▆▇█."""
    return "".join(_BARS[math.ceil(portion * len(_BARS)) - 1] for portion in schedule)
