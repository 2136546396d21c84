"""Checks that codes are levels of their codebook, and that weights match their codes."""

import torch
from torch import Tensor

from inq_ray.core.channels import AnyCodebook, ChannelCodebook
from inq_ray.export.float_state import check_exact
from inq_ray.files.shown import quoted

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_codes(name: str, codebook: AnyCodebook, codes: Tensor) -> None:
    """Check that codes from a file are uint8 and stand for levels.

    Raises:
        ValueError: They are not; names the tensor.
    """
    if codes.dtype != torch.uint8:
        raise ValueError(f"{quoted(name)} has codes of {codes.dtype}, expected torch.uint8")
    try:
        strange = codebook.strange_code(codes)
    except ValueError as error:
        raise ValueError(f"{quoted(name)}: {error}") from None
    if strange is not None:
        raise ValueError(f"{quoted(name)} has code {strange}, which is not a level of {quoted(codebook)}")


def fault(name: str, weight: Tensor, codebook: AnyCodebook, codes: Tensor) -> str | None:
    """Return what is wrong with a quantized tensor, None if nothing is."""
    if weight.shape != codes.shape:
        return f"has shape {quoted(list(weight.shape))}, its codes {quoted(list(codes.shape))}"
    if weight.dtype not in _DTYPES:
        return f"has dtype {weight.dtype}, but codes stand for values of a floating dtype such as {_DTYPES[0]}"
    try:
        check_exact(name, codebook, codes, weight.dtype)
    except ValueError as error:
        return str(error)
    num_off = int((~_is_level(weight, codebook)).sum())
    if num_off:
        return f"{num_off} of {weight.numel()} weights are neither 0 nor a power of two of {quoted(codebook)}"
    num_other = int((_bytes(weight) != _bytes(codebook.decode(codes, weight.dtype))).any(dim=1).sum())
    if num_other:
        return f"{num_other} of {weight.numel()} weights differ from their codes"
    return None


def _is_level(weight: Tensor, codebook: AnyCodebook) -> Tensor:
    """Return which weights are +0 or ±2^k, n_2 <= k <= n_1; computed by frexp, independently of decoding."""
    if isinstance(codebook, ChannelCodebook):
        return torch.stack([_is_level(row, each) for row, each in zip(weight, codebook.channels, strict=True)])
    zero = (weight == 0) & ~torch.signbit(weight)
    if codebook.n_1 is None:
        return zero
    assert codebook.n_2 is not None
    mantissa, exponent = torch.frexp(weight.double())  # double represents every float dtype's values exactly
    in_range = (exponent - 1 >= codebook.n_2) & (exponent - 1 <= codebook.n_1)
    return zero | ((mantissa.abs() == 0.5) & in_range)


def _bytes(weight: Tensor) -> Tensor:
    """Return uint8 [number of weights, bytes per weight]."""
    return weight.reshape(-1).view(torch.uint8).view(-1, weight.element_size())
