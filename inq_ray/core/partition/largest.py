"""Selection of a tensor's largest live elements, by counting."""

import torch
from torch import Tensor


def largest(keys: Tensor, frozen: Tensor, count: int) -> Tensor:
    """Mark the ``count`` live elements with the largest keys; of equal keys the first ones.

    Args:
        keys: Non-negative int [*].
        frozen: bool [*].
        count: At most the number of live elements.

    Returns:
        bool [*].
    """
    live = ~frozen
    num_live = int(torch.count_nonzero(live))
    assert 0 <= count <= num_live, f"{count=} {num_live=}"
    if count == num_live:
        return live
    if count == 0:
        return torch.zeros_like(frozen)
    # Frozen elements get key 0, which no live key is below. (Multiplying by a bool would be ten times as slow.)
    ranked = (keys if num_live == keys.numel() else keys * live.view(torch.uint8)).reshape(-1)
    threshold = _kth_largest(ranked, count)
    chosen = ranked > threshold
    num_ties = count - int(torch.count_nonzero(chosen))
    tied = (ranked == threshold).logical_and_(live.reshape(-1))
    chosen[tied.nonzero().view(-1)[:num_ties]] = True
    return chosen.view(frozen.shape)


def _kth_largest(values: Tensor, k: int) -> int:
    """Return the k-th largest (k from 1) of a flat tensor of non-negative integers: radix selection, 16 bits per round.

    Counting takes about the same time for any values. NumPy's partition is faster on distinct values, but thirty times
    as slow if most are 0: in pruned networks, and if most are frozen.
    """
    found = 0
    for shift in range(torch.iinfo(values.dtype).bits - 16, -1, -16):
        digits = values >> shift if shift else values
        counts = torch.bincount(digits)
        at_least = counts.flip(0).cumsum(0).flip(0)  # number of values with this digit or a larger one
        digit = int(torch.count_nonzero(at_least >= k)) - 1
        k -= int(at_least[digit] - counts[digit])
        found += digit << shift
        if shift:
            values = values[digits == digit] - (digit << shift)
    return found
