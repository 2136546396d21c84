"""Weights for properties: of many sizes, with zeros, ties and values at the cut points of equation 4."""

import math
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor

from inq_ray.core.codebook import Codebook

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def weights(max_size: int = 60, dtypes: tuple[torch.dtype, ...] = DTYPES) -> st.SearchStrategy[Tensor]:
    """Tensors of rank 1, 2 or 4 with ties, both zeros, powers of two, cut points, and values between."""
    special = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 0.75, -0.75, 0.375, 1.5, 2.0**-126, 2.0**-127, 2.0**-20, 1e-30]
    values = st.one_of(
        st.sampled_from(special), st.floats(-4.0, 4.0, width=32), st.floats(-(2.0**-10), 2.0**-10, width=32)
    )
    lists = st.lists(values, min_size=1, max_size=max_size)
    return st.builds(_tensor, lists, st.sampled_from(dtypes), st.sampled_from([1, 2, 4]))


def _tensor(values: list[float], dtype: torch.dtype, ndim: int) -> Tensor:
    flat = torch.tensor(values, dtype=dtype)
    if ndim == 1 or len(values) % 4:
        return flat
    return flat.view(4, -1) if ndim == 2 else flat.view(-1, 2, 2, 1)


def equation_4(weight: float, codebook: Codebook) -> float:
    """Equation 4 read literally, with our two rules: saturation, and 0 below 2^-126. Exact, as cuts are float64."""
    if codebook.n_1 is None or codebook.n_2 is None or abs(weight) < 2.0**-126:
        return 0.0
    positive = [0.0, *(2.0**k for k in range(codebook.n_2, codebook.n_1 + 1))]
    for alpha, beta in pairwise(positive):
        if (alpha + beta) / 2 <= abs(weight) < 3 * beta / 2:
            return math.copysign(beta, weight)
    return math.copysign(positive[-1], weight) if abs(weight) >= positive[-1] else 0.0


def bits(tensor: Tensor) -> list[int]:
    """The bit patterns of a float tensor, so that equal means equal signs of zero and NaN too."""
    by_size = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    values: list[int] = tensor.detach().reshape(-1).view(by_size[tensor.element_size()]).tolist()
    return values
