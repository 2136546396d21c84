"""Accumulated portions: the fraction of each tensor that is frozen after each stage."""

from collections.abc import Sequence
from itertools import pairwise


def check_portions(portions: Sequence[float], *, complete: bool = False) -> tuple[float, ...]:
    """Check portions and return them as a tuple of floats.

    Args:
        portions: Accumulated fractions of each tensor's weights, in (0, 1], ascending.
        complete: Whether they must end at 1.0.

    Raises:
        ValueError: Not a list of numbers, empty, not ascending, outside (0, 1], or not ending at 1.0 with ``complete``.
    """
    try:
        checked = tuple(float(portion) for portion in portions)
    except (TypeError, ValueError) as error:
        raise ValueError(f"portions must be a list of numbers, such as [0.5, 0.75, 1.0], got {portions!r}") from error
    if not checked:
        raise ValueError("portions must name at least one stage, got none: for example 0.5 0.75 0.875 1.0")
    if not all(0.0 < portion <= 1.0 for portion in checked):
        raise ValueError(f"portions must be accumulated fractions in (0, 1], got {_text(checked)}")
    if any(after <= before for before, after in pairwise(checked)):
        raise ValueError(f"portions are accumulated, so each must be larger than the one before, got {_text(checked)}")
    if complete and checked[-1] != 1.0:
        raise ValueError(f"portions must end at 1.0, so that every weight is frozen, got {_text(checked)}")
    return checked


def num_frozen(portion: float, num_weights: int) -> int:
    """Return the number of frozen weights of a tensor at ``portion``: round(portion · N), halves to even."""
    return round(portion * num_weights)


def _text(portions: Sequence[float]) -> str:
    return " ".join(f"{portion:g}" for portion in portions)
