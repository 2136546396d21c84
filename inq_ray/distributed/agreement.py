"""Do all ranks hold the same? A question every rank asks at once and gets the same answer to."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from inq_ray.distributed.wire import gather_bytes


class ReplicaMismatchError(RuntimeError):
    """The replicas are no longer the same network; raised on every rank at once.

    Attributes:
        stage: the stage (1-based, as the caller counts) after which they were compared, None outside a stage.
        what: what was compared, such as "replicas".
        tensor: name of the first tensor (or option), by name, that differs.
        ranks: the ranks that differ from the majority; where there is none, from the lowest rank of the largest groups.
        num_tensors: how many differ in all.
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
            f"{where}{what} differ between ranks: {tensor!r} on ranks {list(self.ranks)} is not what the other "
            f"ranks hold{others}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.stage, self.what, self.tensor, self.ranks, self.num_tensors)


def check_equal(entries: Mapping[str, str], *, stage: int | None, what: str) -> None:
    """Stops every rank where `entries` are not the same on all of them, in names or in values; order does not matter.

    32 bytes a rank travel while all agree; the entries themselves only to find out who differs.

    Raises:
        ReplicaMismatchError: the same on every rank.
    """
    message = json.dumps(dict(entries), sort_keys=True).encode()
    fingerprints = gather_bytes(hashlib.sha256(message).digest())
    if len(set(fingerprints)) == 1:
        return
    by_rank: list[dict[str, str]] = [json.loads(entry) for entry in gather_bytes(message)]
    differing = differing_names(by_rank)
    first = min(differing)
    raise ReplicaMismatchError(stage, what, first, differing[first], len(differing))


def differing_names(by_rank: Sequence[Mapping[str, str]]) -> dict[str, tuple[int, ...]]:
    """Returns, for each name whose entry is not the same on all ranks, the ranks that differ.

    Args:
        by_rank: each rank's entries; a rank may lack a name.
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
