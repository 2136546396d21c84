"""Check that all ranks hold the same network, by digests."""

from collections.abc import Mapping

import torch
from torch import Tensor

from inq_ray.core.channels import AnyCodebook
from inq_ray.core.codebook import num_exponents
from inq_ray.core.digest import digest_tensors, summary
from inq_ray.core.state import TensorState
from inq_ray.distributed.agreement import check_equal


def check_replicas(tensors: Mapping[str, Tensor], *, stage: int | None, what: str) -> str:
    """Stop every rank where the tensors are not the same bits on all of them.

    Args:
        tensors: by name, any dtype and device; a rank with other names is found too.
        stage: the stage, for the message; None outside a stage.
        what: what is compared, in the plural, for the message.

    Returns:
        The summary digest (sha256, hex), the same on every rank; see `core.digest.summary`.

    Raises:
        ReplicaMismatchError: on every rank, naming the first tensor that differs and the ranks that hold other bits.
    """
    digests = digest_tensors(tensors)
    check_equal(digests, stage=stage, what=what)
    return summary(digests)


def state_tensors(states: Mapping[str, TensorState]) -> dict[str, Tensor]:
    """Return masks, codes and codebooks as tensors named `<parameter>/frozen`, `/codes` and `/codebook`.

    A codebook becomes int64 [num_bits, n_1], with all n_1 where each channel has one, and the number of exponents after
    them where levels are "full". An n_1 that is None is left out for a tensor, and 2^15 for a channel.
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
