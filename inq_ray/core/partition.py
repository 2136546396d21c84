"""Weight partition: which live weights freeze next (Zhou et al., ICLR 2017, section 2.2)."""

import hashlib
from typing import Literal

import torch
from torch import Tensor

from inq_ray.core.codebook import Codebook, float_format, magnitudes

Strategy = Literal["pruning", "random", "error"]
STRATEGIES: tuple[Strategy, ...] = ("pruning", "random", "error")


def check_strategy(strategy: str) -> None:
    """Raises ValueError unless ``strategy`` is one of STRATEGIES."""
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")


def choose(
    weight: Tensor,
    frozen: Tensor,
    count: int,
    *,
    codebook: Codebook,
    strategy: Strategy,
    seed: int,
    stage: int,
    name: str,
) -> Tensor:
    """Chooses ``count`` of the live weights.

    "pruning" takes those of largest magnitude, "random" any with equal chance, "error" those that are nearest to the
    levels to which they are rounded. Equal ones go by their place in the tensor, so the choice is the same on every
    device and in every memory format.

    Args:
        weight: float [*].
        frozen: bool [*].
        count: how many to choose, at most the number of live weights.
        codebook: levels of the tensor; "error" alone looks at them.
        strategy: "pruning", "random" or "error".
        seed: with ``stage`` and ``name`` all that the random choice depends on.
        stage: number of the stage, from 0.
        name: the parameter's name.

    Returns:
        bool [*], True = chosen.
    """
    if strategy == "pruning":
        keys = magnitudes(weight.contiguous())
    elif strategy == "error":
        keys = _nearness(weight.detach().contiguous(), codebook)
    else:
        keys = _random_keys(weight.shape, seed=seed, stage=stage, name=name).to(weight.device)
    return largest(keys, frozen, count)


def largest(keys: Tensor, frozen: Tensor, count: int) -> Tensor:
    """Marks the ``count`` live elements of largest key; of equal keys those that come first.

    Args:
        keys: non-negative int [*].
        frozen: bool [*].
        count: at most the number of live elements.

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
    # Frozen elements get key 0: no live one is below them. (As a bool, live would multiply ten times as slowly.)
    ranked = (keys if num_live == keys.numel() else keys * live.view(torch.uint8)).reshape(-1)
    threshold = _kth_largest(ranked, count)
    chosen = ranked > threshold
    num_ties = count - int(torch.count_nonzero(chosen))
    tied = (ranked == threshold).logical_and_(live.reshape(-1))
    chosen[tied.nonzero().view(-1)[:num_ties]] = True
    return chosen.view(frozen.shape)


def _kth_largest(values: Tensor, k: int) -> int:
    """The k-th largest (k from 1) of a flat tensor of non-negative integers: radix selection, 16 bits a round.

    Counting takes about the same time whatever the values are. NumPy's partition is faster on distinct values, but
    thirty times as slow where most are 0: in pruned networks, and where most are frozen.
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


def _nearness(weight: Tensor, codebook: Codebook) -> Tensor:
    """int16, int32 or int64 [*], larger for a smaller |w - Q(w)|.

    The difference is exact: Q(w) is 0, or a power of two at least as large as the last digit of w (but where w has
    grown to 2^24 times its level, in float32).
    """
    return float_format(weight.dtype).magnitude_mask - magnitudes(weight - codebook.quantize(weight))


def _random_keys(shape: torch.Size, *, seed: int, stage: int, name: str) -> Tensor:
    """int32 ``shape`` of uniform keys; drawn on the CPU, whose generator gives the same numbers on every machine."""
    digest = hashlib.blake2b(f"{seed}/{stage}/{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
    return torch.empty(shape, dtype=torch.int32, device="cpu").random_(generator=generator)
