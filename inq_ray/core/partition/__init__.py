"""Weight partition: which live weights freeze next (Zhou et al., ICLR 2017, section 2.2).

A strategy is a file in this package, with a function that gives each weight a key, and an entry in STRATEGIES: the live
weights with the largest keys freeze next.
"""

from collections.abc import Callable

from torch import Tensor

from inq_ray.core.partition import pruning, random
from inq_ray.core.partition.largest import largest

# From weight (float [*]), seed, stage (from 0) and the parameter's name to its keys: non-negative int [*].
STRATEGIES: dict[str, Callable[[Tensor, int, int, str], Tensor]] = {
    "pruning": pruning.keys,
    "random": random.keys,
}


def check_strategy(strategy: str) -> None:
    """Raise ValueError unless ``strategy`` is one of STRATEGIES."""
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")


def partition(weight: Tensor, frozen: Tensor, count: int, *, strategy: str, seed: int, stage: int, name: str) -> Tensor:
    """Choose ``count`` of the live weights.

    Equal keys are ordered by position in the tensor, so the choice is the same on every device and memory format.

    Args:
        weight: float [*].
        frozen: bool [*].
        count: Number of weights to choose, at most the number of live weights.
        strategy: One of STRATEGIES.
        seed: Random seed; random choices depend on it, ``stage`` and ``name`` only.
        stage: Number of the stage, from 0.
        name: Name of the parameter.

    Returns:
        bool [*], True = chosen.
    """
    return largest(STRATEGIES[strategy](weight, seed, stage, name), frozen, count)
