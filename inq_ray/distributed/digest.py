"""Check that all ranks hold the same network, by digests."""

from collections.abc import Mapping

import torch
from torch import Tensor

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

    A codebook becomes int64 [num_bits, n_1]; [num_bits] where n_1 is None, the codebook of an all-zero tensor.
    """
    tensors: dict[str, Tensor] = {}
    for name, state in states.items():
        codebook = state.codebook
        exponents = [] if codebook.n_1 is None else [codebook.n_1]
        tensors[f"{name}/frozen"] = state.frozen
        tensors[f"{name}/codes"] = state.codes
        tensors[f"{name}/codebook"] = torch.tensor([codebook.num_bits, *exponents], dtype=torch.int64)
    return tensors
