"""Whether a saved state can be one of an object of torch's: load_state_dict of theirs takes anything."""

import math
from collections.abc import Mapping
from typing import Any


def check_state(what: str, saved: Mapping[str, Any], owner: Any) -> None:
    """Refuses a state that the owner would not have given.

    Other versions of torch keep a little more or less: what is missing stays as it is, and what is new is passed over
    unless it would take the place of a method.

    Args:
        what: it is called in messages.
        saved: from JSON.
        owner: has state_dict() and the same number of everything.

    Raises:
        ValueError: names what differs.
    """
    own = owner.state_dict()
    for name, value in saved.items():
        if name in own and not _is_alike(value, own[name]):
            raise ValueError(f"the checkpoint's {what} has {name} {str(value)[:80]!r}, the run's {str(own[name])[:80]}")
        if name not in own and hasattr(owner, name):
            raise ValueError(f"the checkpoint's {what} has {name}, which is no part of its state")


def _is_alike(value: Any, own: Any) -> bool:
    """Whether a value is of the kind and form of another; whole numbers are counts, others finite."""
    match own:
        case bool() | str() | None:
            return type(value) is type(own)
        case int():
            return type(value) is int and 0 <= value < 2**53
        case float():
            return type(value) in (int, float) and abs(value) < 2**1000 and math.isfinite(value)
        case Mapping():
            return (
                isinstance(value, dict)
                and value.keys() == own.keys()
                and all(_is_alike(value[name], own[name]) for name in own)
            )
        case list() | tuple():
            return isinstance(value, list) and len(value) == len(own) and all(map(_is_alike, value, own))
    return False
