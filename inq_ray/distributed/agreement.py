"""Check that all ranks hold the same values; every rank calls it and gets the same answer."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import xxhash

from inq_ray.distributed.wire import Group, bytes_to_tensor, gather_bytes, gather_rows, global_ranks, world_size


class ReplicaMismatchError(RuntimeError):
    """The replicas differ; raised on every rank at once.

    Attributes:
        stage: Stage (1-based) after which they were compared; None outside a stage.
        what: What was compared, such as "replicas".
        tensor: First tensor (or option), by name, that differs.
        ranks: Ranks that differ from the majority; without a majority, from the largest group with the lowest rank.
        num_tensors: Number of tensors that differ.
    """

    def __init__(self, stage: int | None, what: str, tensor: str, ranks: Sequence[int], num_tensors: int = 1) -> None:
        self.stage = stage
        self.what = what
        self.tensor = tensor
        self.ranks = tuple(ranks)
        self.num_tensors = num_tensors
        where = "" if stage is None else f"stage {stage}: "
        others = "" if num_tensors == 1 else f" (first of {num_tensors} that differ)"
        super().__init__(
            f"{where}{what} differ between ranks: {tensor!r} on ranks {list(self.ranks)} is not the same as on the "
            f"other ranks{others}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.stage, self.what, self.tensor, self.ranks, self.num_tensors)


def check_equal(entries: Mapping[str, str], *, stage: int | None, what: str, group: Group = None) -> None:
    """Stop every rank if `entries` differ between ranks, in names or values; order does not matter.

    While all agree, 16 bytes are sent per rank; the entries themselves only to find out which ranks differ.

    Raises:
        ReplicaMismatchError: Entries differ; the same error on every rank.
    """
    if world_size(group) == 1:
        return
    message = json.dumps(dict(entries), sort_keys=True).encode()
    fingerprints = gather_rows(bytes_to_tensor(xxhash.xxh3_128_digest(message)), group)
    if bool((fingerprints == fingerprints[0]).all()):
        return
    by_rank: list[dict[str, str]] = [json.loads(entry) for entry in gather_bytes(message, group)]
    differing = differing_names(by_rank)
    first = min(differing)
    raise ReplicaMismatchError(stage, what, first, global_ranks(differing[first], group), len(differing))


def differing_names(by_rank: Sequence[Mapping[str, str]]) -> dict[str, tuple[int, ...]]:
    """Return, for each name whose entry differs between ranks, the ranks that differ.

    Args:
        by_rank: Entries of each rank; a rank may lack a name.
    """
    names = sorted(set().union(*by_rank))
    ranks = {name: minority([entries.get(name) for entries in by_rank]) for name in names}
    return {name: differing for name, differing in ranks.items() if differing}


def minority(values: Sequence[str | None]) -> tuple[int, ...]:
    """Return the indices whose value is not the most common one; of equally common ones the first counts as right.

    Examples:
        >>> minority(["a", "a", "b"]), minority(["b", "a", "a"]), minority(["a", "b"]), minority(["a", "a"])
        ((2,), (0,), (1,), ())
    """
    reference = Counter(values).most_common(1)[0][0]  # equal counts keep the order of first appearance
    return tuple(index for index, value in enumerate(values) if value != reference)
