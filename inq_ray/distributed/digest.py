"""Check that all ranks hold the same network, by digests."""

from collections.abc import Mapping

import torch
import xxhash
from torch import Tensor

from inq_ray.core.channels import AnyCodebook
from inq_ray.core.codebook import num_exponents
from inq_ray.core.digest import digest_tensors
from inq_ray.core.state import TensorState
from inq_ray.distributed.agreement import check_equal
from inq_ray.distributed.wire import Group, world_size


def check_replicas(tensors: Mapping[str, Tensor], *, stage: int | None, what: str, group: Group = None) -> None:
    """Stop every rank if the tensors are not bit for bit the same on all of them.

    Args:
        tensors: Tensors by name, any dtype and device; different names are detected too.
        stage: Stage for the message; None outside a stage.
        what: What is compared, in the plural, for the message.
        group: Ranks that take part.

    Raises:
        ReplicaMismatchError: Tensors differ; on every rank, naming the first tensor that differs and the ranks.
    """
    if world_size(group) > 1:
        check_equal(fast_digests(tensors), stage=stage, what=what, group=group)


def fast_digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return digests (xxh3_128, hex) that are compared and dropped, see :func:`inq_ray.core.digest.digest_tensors`.

    They find faults, not forgeries, several times as fast as SHA-256.
    """
    return digest_tensors(tensors, xxhash.xxh3_128)


def state_tensors(states: Mapping[str, TensorState]) -> dict[str, Tensor]:
    """Return masks, codes and codebooks as tensors named `<parameter>/frozen`, `/codes` and `/codebook`.

    A codebook becomes int64 [num_bits, n_1], with all n_1 if there is one per channel, and followed by the number of
    exponents if levels are "full". An n_1 that is None is omitted for a tensor, and 2^15 for a channel.
    """
    tensors: dict[str, Tensor] = {}
    for name, state in states.items():
        tensors[f"{name}/frozen"] = state.frozen
        tensors[f"{name}/codes"] = state.codes
        tensors[f"{name}/codebook"] = torch.tensor(_numbers(state.codebook), dtype=torch.int64)
    return tensors


def _numbers(codebook: AnyCodebook) -> list[int]:
    n_1 = codebook.n_1
    exponents = [n_1] if isinstance(n_1, int) else [1 << 15 if each is None else each for each in n_1 or ()]
    last = [num_exponents(codebook.num_bits, "full")] if codebook.levels == "full" else []
    return [codebook.num_bits, *exponents, *last]
