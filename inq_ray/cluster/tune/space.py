"""Conversion of ray.tune's search spaces into axes of a sweep."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ray.tune.search.sample import Categorical, Float, Integer, LogUniform, Uniform

from inq_ray.sweep.space.axes import Axis, Choices, Range


def axis_of(name: str, domain: Any) -> Axis:
    """Return the axis for a domain of ray.tune.

    Args:
        name: Name of the field, for messages.
        domain: choice, grid_search, uniform, loguniform or randint of ray.tune, a list, or an axis.

    Raises:
        ValueError: It is something else; names the field.
    """
    if isinstance(domain, Axis):
        return domain
    if isinstance(domain, Mapping) and set(domain) == {"grid_search"}:
        return _choices(domain["grid_search"])
    if isinstance(domain, Categorical):
        return _choices(domain.categories)
    if isinstance(domain, list | tuple):
        return _choices(domain)
    what = type(domain).__name__
    if isinstance(domain, Integer | Float):
        sampler: Any = domain.get_sampler()  # type: ignore[no-untyped-call]
        if isinstance(domain, Integer) and isinstance(sampler, Uniform):
            return Choices(tuple(range(domain.lower, domain.upper)))
        if isinstance(domain, Float) and isinstance(sampler, Uniform | LogUniform):
            return Range(domain.lower, domain.upper, log=isinstance(sampler, LogUniform))
        what = f"{type(sampler).__name__.strip('_')} {what}"
    raise ValueError(f"{name} is a {what}: use tune.choice, grid_search, uniform, loguniform or randint")


def _choices(values: Iterable[Any]) -> Choices:
    """Return the choices, with NumPy's numbers converted to Python's."""
    return Choices(tuple(value.item() if isinstance(value, np.generic) else value for value in values))
