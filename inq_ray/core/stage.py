"""One stage on one tensor: the decision which weights freeze at which levels, and its application.

Both are separate, because with several workers one decides about a tensor and all apply.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from inq_ray.core.channels import AnyCodebook, decided, rounding
from inq_ray.core.codebook import Rule, float_format
from inq_ray.core.compensation import compensate, damped, round_in_turn
from inq_ray.core.partition import partition
from inq_ray.core.portions import num_frozen
from inq_ray.core.state import TensorState

# Weights restored at a time.
_PIECE = 1 << 20


@dataclass(frozen=True)
class StageUpdate:
    """Change of one tensor in one stage.

    Attributes:
        codebook: Levels of the tensor from now on.
        newly_frozen: bool, the weight's shape; none of them was frozen before.
        codes: uint8, the weight's shape; codes of the newly frozen weights, 0 elsewhere.
        moved: The weight's dtype and shape; live weights after the stage, 0 elsewhere. None = they do not change.
    """

    codebook: AnyCodebook
    newly_frozen: Tensor
    codes: Tensor
    moved: Tensor | None = None


def decide(
    weight: Tensor,
    state: TensorState,
    portion: float,
    *,
    name: str,
    strategy: str,
    seed: int,
    stage: int,
    rule: Rule = "max",
) -> StageUpdate:
    """Decide a stage for one tensor, without changing anything.

    The codebook is fixed at the first stage in which the tensor, or the channel, has a non-zero weight. Afterwards
    exactly round(portion · N) weights are frozen, or as many as before if that is more.

    Args:
        weight: float [*].
        state: The tensor's state before the stage.
        portion: Accumulated fraction in (0, 1].
        name: The parameter's name, for errors and for random choices.
        strategy: One of inq_ray.core.partition.STRATEGIES.
        seed: Seed of random choices.
        stage: Number of the stage, from 0.
        rule: Rule for the codebook.

    Raises:
        ValueError: Weights are NaN, infinite or beyond the range of float32, or their dtype cannot be quantized; names
            the tensor.
    """
    weight = weight.detach().contiguous()
    try:
        codebook = decided(state.codebook, weight, rule)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    count = max(0, num_frozen(portion, weight.numel()) - state.num_frozen)
    newly = partition(weight, state.frozen, count, strategy=strategy, seed=seed, stage=stage, name=name)
    codes = codebook.encode(weight).mul_(newly.view(torch.uint8))
    return StageUpdate(codebook=codebook, newly_frozen=newly, codes=codes)


def compensated(weight: Tensor, state: TensorState, update: StageUpdate, moments: Tensor) -> StageUpdate:
    """Return a stage in which other weights compensate for the rounding of frozen ones; see inq_ray.core.compensation.

    The weights that stay live change. If none stays live, weights are rounded in turn, each taking earlier errors into
    account.

    Args:
        weight: float [*], before the stage.
        state: The tensor's state before the stage.
        update: Result of :func:`decide`.
        moments: float64 [groups, n, n], second moments of the inputs of the weight's rows, as of
            :meth:`inq_ray.core.moments.Moments.of`.
    """
    groups, inputs = moments.shape[0], moments.shape[-1]
    rows, newly = (each.detach().reshape(groups, -1, inputs) for each in (weight.double(), update.newly_frozen))
    live = ~(newly | state.frozen.reshape(newly.shape))
    matrix = damped(moments.to(rows.device))
    if bool(live.any()):
        levels = update.codebook.decode(update.codes, torch.float64).reshape(newly.shape)
        change = torch.where(newly, levels - rows, 0.0)
        moved = torch.where(live, rows + compensate(change, live, matrix), 0.0).reshape(weight.shape).to(weight.dtype)
        return dataclasses.replace(update, moved=moved)
    rounded = round_in_turn(rows, matrix, rounding(update.codebook, groups), newly).reshape(weight.shape)
    codes = update.codebook.encode(rounded).mul_(update.newly_frozen.view(torch.uint8))
    return dataclasses.replace(update, codes=codes)


def apply(weight: Tensor, state: TensorState, update: StageUpdate) -> None:
    """Freeze and move the weights in ``update``, in ``weight`` and ``state``; frozen weights keep their bits.

    Args:
        weight: float [*], any memory format.
        state: The tensor's state before the stage.
        update: Decision of :func:`decide`, on this rank or another.
    """
    assert not bool(torch.any(state.frozen & update.newly_frozen)), "a frozen weight would be frozen again"
    state.codebook = update.codebook
    state.frozen |= update.newly_frozen
    state.codes += update.codes
    if update.moved is not None:
        weight.detach().copy_(torch.where(state.frozen, weight.detach(), update.moved))
    restore(weight, state)


def round_all(weight: Tensor, state: TensorState, rule: Rule = "max") -> None:
    """Round all weights to the nearest levels, and freeze them.

    Args:
        weight: float [*].
        state: The tensor's state, with nothing frozen.
        rule: Rule for the codebook.
    """
    codebook = decided(state.codebook, weight.detach(), rule)
    apply(weight, state, StageUpdate(codebook, torch.ones_like(state.frozen), codebook.encode(weight)))


def num_changed(weight: Tensor, state: TensorState) -> int:
    """Return how many frozen weights of ``weight`` (float [*]) differ from their level."""
    levels = state.codebook.decode(state.codes, weight.dtype)
    return int(torch.count_nonzero((weight.detach() != levels) & state.frozen))


def restore(weight: Tensor, state: TensorState) -> None:
    """Write the levels of all frozen weights into ``weight`` (float [*]) in place; live weights keep their bits."""
    bits = weight.detach().view(float_format(weight.dtype).bits_dtype)
    levels = state.codebook.decode(state.codes, weight.dtype).view(bits.dtype)
    # A live weight's code is 0, so its level is all zero bits: bits · live + level selects, and is three times as fast
    # as torch.where with a random condition. In pieces, because torch converts masks to integers as wide as weights.
    rows = [each if each.dim() else each.view(1) for each in (bits, state.frozen, levels)]
    num_rows = max(1, _PIECE * len(rows[0]) // max(1, weight.numel()))
    for part, frozen, of_part in zip(*(torch.split(each, num_rows) for each in rows), strict=True):
        part.mul_((~frozen).view(torch.uint8)).add_(of_part)
