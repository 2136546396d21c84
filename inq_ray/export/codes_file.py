"""codes.safetensors: uint8 codes by parameter name, and the codebook of each.

Its metadata `inq_ray` is JSON with `format_version`, and in `tensors` num_bits, n_1 and n_2 of each tensor (n_1 and n_2
are null if every weight is zero). Code 0 is the weight 0; else code = (negative << (num_bits - 1)) | (k - n_2 + 1) is
the weight (-1)^negative * 2^k.

In version 1 all tensors have the paper's levels, n_1 - n_2 + 1 = 2^(num_bits - 2), and one n_1. Version 2 is written
if a tensor needs it. It also has `levels` for each tensor: "paper", or "full" with n_1 - n_2 + 1 = 2^(num_bits - 1) -
1. Its n_1 and n_2 may be lists, with a number or null per index of the tensor's first dimension.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from inq_ray import safetensors_file
from inq_ray.core.channels import AnyCodebook, codebook_of
from inq_ray.core.codebook import Codebook
from inq_ray.export.errors import VerificationError
from inq_ray.export.level_check import check_codes, fault
from inq_ray.export.model_file import MODEL_FILE
from inq_ray.export.result import Result
from inq_ray.files.shown import one_line, quoted

CODES_FILE = "codes.safetensors"
FORMAT_VERSIONS = (1, 2)
_METADATA_KEY = "inq_ray"


def write(path: Path, result: Result) -> None:
    """Write codes and codebooks; see :class:`inq_ray.export.formats.Format`."""
    codebooks = {name: state.codebook for name, state in result.states.items()}
    version = 1 if all(isinstance(each, Codebook) and each.levels == "paper" for each in codebooks.values()) else 2
    described = {name: _describe(codebook, version) for name, codebook in codebooks.items()}
    metadata = json.dumps({"format_version": version, "tensors": described}, sort_keys=True)
    safetensors_file.save(path, {name: state.codes for name, state in result.states.items()}, {_METADATA_KEY: metadata})


def read_codes(path: str | Path) -> dict[str, tuple[AnyCodebook, Tensor]]:
    """Return the contents of the file, after checking that every code is a level of its codebook.

    Returns:
        Codebook and codes (uint8, the weight's shape, on the CPU) by parameter name.

    Raises:
        ValueError: Names the file, the tensor and what is wrong.
    """
    tensors, metadata = safetensors_file.read(Path(path))
    try:
        return _codes(tensors, metadata)
    except ValueError as error:
        raise ValueError(one_line(f"{path}: {error}")) from error


def verify(path: Path, model: Mapping[str, Tensor], names: Collection[str]) -> None:
    """Check that every quantized weight is a level of its codebook and matches its code.

    Args:
        path: The file.
        model: Contents of model.safetensors.
        names: Quantized parameters: no more and no fewer may have codes.

    Raises:
        VerificationError: Names the first tensor that is wrong, and what is wrong with it.
    """
    try:
        codes = read_codes(path)
    except ValueError as error:
        raise VerificationError(None, str(error)) from error
    for name in sorted(set(names) ^ codes.keys()):
        raise VerificationError(name, "has no codes" if name in names else "has codes, but must not be quantized")
    for name, (codebook, tensor_codes) in codes.items():
        if name not in model:
            raise VerificationError(name, f"has codes, but is not in {MODEL_FILE}")
        reason = fault(name, model[name], codebook, tensor_codes)
        if reason:
            raise VerificationError(name, reason)


def _describe(codebook: AnyCodebook, version: int) -> dict[str, Any]:
    line = {"num_bits": codebook.num_bits, "n_1": codebook.n_1, "n_2": codebook.n_2}
    return line if version == 1 else {**line, "levels": codebook.levels}


def _codes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, tuple[AnyCodebook, Tensor]]:
    codebooks = _codebooks(metadata)
    if codebooks.keys() != tensors.keys():
        odd = sorted(codebooks.keys() ^ tensors.keys())
        raise ValueError(
            f"{quoted(odd[0])} is not in both tensors and metadata ({len(odd)} such): write the file again"
        )
    for name, codebook in codebooks.items():
        check_codes(name, codebook, tensors[name])
    return {name: (codebook, tensors[name]) for name, codebook in codebooks.items()}


def _codebooks(metadata: Mapping[str, str]) -> dict[str, AnyCodebook]:
    if _METADATA_KEY not in metadata:
        raise ValueError(f"has no codes: its metadata has no {_METADATA_KEY!r}; expected a {CODES_FILE}")
    try:
        described = json.loads(metadata[_METADATA_KEY])
        version, tensors = described["format_version"], described["tensors"].items()
    except (AttributeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"its metadata {_METADATA_KEY!r} is damaged ({quoted(error)})") from error
    if version not in FORMAT_VERSIONS:
        raise ValueError(f"format_version is {quoted(version)}, but this program reads up to {FORMAT_VERSIONS[-1]}")
    fields = ("num_bits", "n_1", "n_2") if version == 1 else ("num_bits", "n_1", "n_2", "levels")
    return {name: _codebook(name, line, fields) for name, line in tensors}


def _codebook(name: str, line: Any, fields: tuple[str, ...]) -> AnyCodebook:
    """Return the codebook in one tensor's metadata, which may be damaged; only a valid one is accepted."""
    if not isinstance(line, dict) or line.keys() != set(fields):
        wanted = f"{', '.join(fields[:-1])} and {fields[-1]}"
        raise ValueError(f"{quoted(name)} has metadata {quoted(line)}, expected {wanted}")
    num_bits, n_1, n_2, levels = line["num_bits"], line["n_1"], line["n_2"], line.get("levels", "paper")
    try:
        codebook = codebook_of(num_bits, n_1, levels)
    except ValueError as error:
        raise ValueError(f"{quoted(name)}: {error}") from None
    due = list(codebook.n_2) if isinstance(codebook.n_2, tuple) else codebook.n_2
    if due != n_2:
        raise ValueError(
            f"{quoted(name)} has n_2={quoted(n_2)}, but {num_bits=} and n_1={quoted(n_1)} give {quoted(due)}"
        )
    return codebook
