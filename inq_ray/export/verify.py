"""Verification of a result, from its files alone."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from inq_ray.core.digest import digest_tensors, summary
from inq_ray.export.errors import VerificationError
from inq_ray.export.formats import FORMATS
from inq_ray.export.model_file import MODEL_FILE, read_model


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Result of a successful verification.

    Attributes:
        num_tensors: Number of quantized tensors.
        num_weights: Number of weights in them.
        num_zero: Number of those that are 0.
        model_sha256: SHA-256 of the bytes of model.safetensors (hex), as printed by `sha256sum`.
        digest: `core.digest.summary` over all tensors of the model (hex), the same as for the loaded model's state.
    """

    num_tensors: int
    num_weights: int
    num_zero: int
    model_sha256: str
    digest: str


def verify(folder: str | Path, expected_names: Iterable[str]) -> Verification:
    """Read back all files of a result and check every quantized weight.

    Args:
        folder: Folder passed to :func:`inq_ray.export.formats.write_result`.
        expected_names: Names of the parameters that must be quantized, no more and no fewer.

    Raises:
        VerificationError: Names the first tensor that is wrong, and what is wrong with it.
    """
    folder, names = Path(folder), frozenset(expected_names)
    try:
        model = read_model(folder / MODEL_FILE)
    except ValueError as error:
        raise VerificationError(None, str(error)) from error
    for each in FORMATS:
        each.verify(each.find(folder), model, names)
    return Verification(
        num_tensors=len(names),
        num_weights=sum(model[name].numel() for name in names),
        num_zero=sum(int((model[name] == 0).sum()) for name in names),
        model_sha256=_sha256(folder / MODEL_FILE),
        digest=summary(digest_tensors(model)),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
