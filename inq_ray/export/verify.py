"""Proof of a result, from its files alone: every quantized weight is a level of its codebook and what its code says."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inq_ray.core.codebook import Codebook
from inq_ray.core.digest import digest_tensors, summary
from inq_ray.export.files import CODES_FILE, MODEL_FILE, read_codes, read_model
from inq_ray.export.float_state import check_exact


class VerificationError(RuntimeError):
    """A result is not what it should be.

    Attributes:
        tensor: the tensor's name, None where a whole file is wrong.
        reason: what is wrong with it.
    """

    def __init__(self, tensor: str | None, reason: str) -> None:
        self.tensor = tensor
        self.reason = reason
        super().__init__(reason if tensor is None else f"tensor {tensor!r}: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tensor, self.reason)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was read back and found right.

    Attributes:
        num_tensors: number of quantized tensors.
        num_weights: number of weights in them.
        num_zero: number of those that are 0.
        model_sha256: of the bytes of model.safetensors (hex), as `sha256sum` prints it.
        digest: `core.digest.summary` over all tensors of the model (hex), the same for the loaded model's state.
    """

    num_tensors: int
    num_weights: int
    num_zero: int
    model_sha256: str
    digest: str


def verify(folder: str | Path, expected_names: Iterable[str]) -> Verification:
    """Reads both files of a result back and checks every quantized weight.

    Args:
        folder: as given to `files.write_result`.
        expected_names: the parameters that shall be quantized: no more and no fewer may have codes.

    Raises:
        VerificationError: names the first tensor that is wrong, and what is wrong with it.
    """
    folder = Path(folder)
    try:
        model, codes = read_model(folder / MODEL_FILE), read_codes(folder / CODES_FILE)
    except ValueError as error:
        raise VerificationError(None, str(error)) from error
    expected = set(expected_names)
    for name in sorted(expected ^ codes.keys()):
        raise VerificationError(name, "has no codes" if name in expected else "has codes, but shall not be quantized")
    for name, (codebook, tensor_codes) in codes.items():
        if name not in model:
            raise VerificationError(name, f"has codes, but is not in {MODEL_FILE}")
        reason = _fault(name, model[name], codebook, tensor_codes)
        if reason:
            raise VerificationError(name, reason)
    return Verification(
        num_tensors=len(codes),
        num_weights=sum(tensor_codes.numel() for _, tensor_codes in codes.values()),
        num_zero=sum(int((model[name] == 0).sum()) for name in codes),
        model_sha256=_sha256(folder / MODEL_FILE),
        digest=summary(digest_tensors(model)),
    )


def _fault(name: str, weight: Tensor, codebook: Codebook, codes: Tensor) -> str | None:
    """Returns what is wrong with a quantized tensor, None where nothing is."""
    if weight.shape != codes.shape:
        return f"has shape {list(weight.shape)}, its codes {list(codes.shape)}"
    try:
        check_exact(name, codebook, codes, weight.dtype)
    except ValueError as error:
        return str(error)
    num_off = int((~_is_level(weight, codebook)).sum())
    if num_off:
        return f"{num_off} of {weight.numel()} weights are neither 0 nor a power of two of {codebook}"
    num_other = int((_bytes(weight) != _bytes(codebook.decode(codes, weight.dtype))).any(dim=1).sum())
    if num_other:
        return f"{num_other} of {weight.numel()} weights are not what their codes say"
    return None


def _is_level(weight: Tensor, codebook: Codebook) -> Tensor:
    """True where a weight is +0 or +-2^k, n_2 <= k <= n_1; by frexp, apart from the way in which codes are decoded."""
    zero = (weight == 0) & ~torch.signbit(weight)
    if codebook.n_1 is None:
        return zero
    assert codebook.n_2 is not None
    mantissa, exponent = torch.frexp(weight.double())  # double holds every float dtype's values exactly
    in_range = (exponent - 1 >= codebook.n_2) & (exponent - 1 <= codebook.n_1)
    return zero | ((mantissa.abs() == 0.5) & in_range)


def _bytes(weight: Tensor) -> Tensor:
    """uint8 [number of weights, bytes of a weight]."""
    return weight.reshape(-1, 1).view(torch.uint8)


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
