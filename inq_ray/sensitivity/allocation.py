"""Allocation of bits to layers: the least loss within a number of bytes, if losses of layers add up.

Greedy: all layers begin with their smallest choice. Then the change that lowers the loss most per byte is made, again
and again. After each of these steps no other allocation of as many bytes or fewer has a smaller loss.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple


class Choice(NamedTuple):
    """A number of bits that a layer can have.

    Attributes:
        bits: Bits per weight.
        num_bytes: Bytes of the layer in the packed file.
        loss: Loss that the layer adds.
    """

    bits: int
    num_bytes: int
    loss: float


def allocations(choices: Mapping[str, Sequence[Choice]], most_bytes: float = math.inf) -> Iterator[dict[str, Choice]]:
    """Yield allocations of rising size and falling loss, which differ in one layer; none if nothing is small enough.

    Args:
        choices: Choices of each layer by name, at least one each.
        most_bytes: Limit of the sum over all layers; the last allocation is the best found within it.
    """
    chosen = {name: min(each, key=lambda choice: choice[1:]) for name, each in choices.items()}
    left = most_bytes - total_bytes(chosen)
    if left < 0:
        return
    yield dict(chosen)
    while True:
        changes = [
            (_gain(chosen[name], choice), name, choice)
            for name, each in choices.items()
            for choice in each
            if choice.loss < chosen[name].loss and choice.num_bytes - chosen[name].num_bytes <= left
        ]
        if not changes:
            return
        _, name, choice = max(changes, key=lambda change: change[0])  # the first of equal ones
        left -= choice.num_bytes - chosen[name].num_bytes
        chosen[name] = choice
        yield dict(chosen)


def total_bytes(chosen: Mapping[str, Choice]) -> int:
    """Return the bytes of an allocation."""
    return sum(choice.num_bytes for choice in chosen.values())


def bits_of(chosen: Mapping[str, Choice]) -> dict[str, int]:
    """Return the bits of each layer in an allocation."""
    return {name: choice.bits for name, choice in chosen.items()}


def _gain(now: Choice, then: Choice) -> float:
    """Return how much loss a change saves per byte; infinite if it needs no bytes."""
    added = then.num_bytes - now.num_bytes
    return (now.loss - then.loss) / added if added > 0 else math.inf
