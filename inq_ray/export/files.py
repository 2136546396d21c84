"""The result of a run as two safetensors files, each written whole or not at all, and read with checks.

    model.safetensors    the network's state as plain tensors, which `model.load_state_dict` takes
    codes.safetensors    uint8 codes by parameter name; metadata `inq_ray`: JSON with `format_version`, and in `tensors`
                         num_bits, n_1 and n_2 of each tensor (n_1 and n_2 null: every weight is zero)

Code 0 is the weight 0; else code = (negative << (num_bits - 1)) | (k - n_2 + 1) is the weight (-1)^negative * 2^k.
"""

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from inq_ray.core.codebook import Codebook
from inq_ray.core.state import TensorState
from inq_ray.export.float_state import used_codes
from inq_ray.files.whole import whole

MODEL_FILE = "model.safetensors"
CODES_FILE = "codes.safetensors"
FORMAT_VERSION = 1
_METADATA_KEY = "inq_ray"


def write_result(folder: str | Path, model_state: Mapping[str, Any], states: Mapping[str, TensorState]) -> None:
    """Writes both files into a folder, which is made where it is missing; the same result gives the same bytes.

    Args:
        folder: on any file system with an atomic rename.
        model_state: `model.state_dict()` of the unwrapped model, on any device; shared tensors are written once a name.
        states: by parameter name, with every weight frozen.

    Raises:
        ValueError: a weight is still live, a tensor of `states` is not in `model_state` in its shape, something in that
            is no tensor, or the files cannot be written: then those of before stand.
    """
    folder = Path(folder)
    for name, state in states.items():
        if state.num_frozen != state.frozen.numel():
            raise ValueError(f"{state.frozen.numel() - state.num_frozen} weights of {name!r} are still live")
        if name not in model_state or model_state[name].shape != state.codes.shape:
            raise ValueError(
                f"{name!r} of shape {list(state.codes.shape)} is not in the model's state: give state_dict() of the "
                "network inside DDP or torch.compile"
            )
    odd = [name for name, value in model_state.items() if not isinstance(value, Tensor)]
    if odd:
        raise ValueError(f"{odd[0]!r} of the model's state is no tensor, and files take tensors alone: leave it out")
    described = {name: _describe(state.codebook) for name, state in states.items()}
    metadata = json.dumps({"format_version": FORMAT_VERSION, "tensors": described}, sort_keys=True)
    # One metadata key a file: safetensors writes several in random order, and equal results shall be equal bytes.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Both are written beside before one is renamed: a disk that is full leaves no two that do not fit together.
        with whole(folder / MODEL_FILE) as model_beside, whole(folder / CODES_FILE) as codes_beside:
            _save(model_beside, model_state, {"format": "pt"})
            _save(codes_beside, {name: state.codes for name, state in states.items()}, {_METADATA_KEY: metadata})
    except (OSError, SafetensorError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        raise ValueError(
            f"cannot write the result to {folder}: {reason}; make room, and give the same command again"
        ) from error


def read_model(path: str | Path) -> dict[str, Tensor]:
    """Reads all tensors of a safetensors file onto the CPU.

    Raises:
        ValueError: the file is missing, cut short or no safetensors file.
    """
    return _read(Path(path))[0]


def read_codes(path: str | Path) -> dict[str, tuple[Codebook, Tensor]]:
    """Reads codes.safetensors, and checks that every code stands for a level of its codebook.

    Returns:
        Codebook and codes (uint8, the weight's shape, on the CPU) by parameter name.

    Raises:
        ValueError: names the file, the tensor and what is wrong.
    """
    path = Path(path)
    tensors, metadata = _read(path)
    codebooks = _codebooks(path, metadata)
    if codebooks.keys() != tensors.keys():
        odd = sorted(codebooks.keys() ^ tensors.keys())
        raise ValueError(f"{path}: {odd[0]!r} is not in both tensors and metadata ({len(odd)} such): write it anew")
    for name, codebook in codebooks.items():
        _check_codes(path, name, codebook, tensors[name])
    return {name: (codebook, tensors[name]) for name, codebook in codebooks.items()}


def _describe(codebook: Codebook) -> dict[str, int | None]:
    return {"num_bits": codebook.num_bits, "n_1": codebook.n_1, "n_2": codebook.n_2}


def _save(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)  # the process's umask cannot be read without setting it, for all threads
    save_file(_plain(tensors), path, metadata)
    path.chmod(mode)  # safetensors makes files that only their owner may read


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU of which no two share memory, as safetensors wants them."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        storage = copy.untyped_storage().data_ptr()
        plain[name] = copy.clone() if storage in seen else copy
        seen.add(storage)
    return plain


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from error


def _codebooks(path: Path, metadata: Mapping[str, str]) -> dict[str, Codebook]:
    if _METADATA_KEY not in metadata:
        raise ValueError(f"{path}: holds no codes, its metadata has no {_METADATA_KEY!r}; {CODES_FILE} is wanted")
    try:
        described = json.loads(metadata[_METADATA_KEY])
        version, tensors = described["format_version"], dict(described["tensors"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: its metadata {_METADATA_KEY!r} is broken ({error!r})") from error
    if version != FORMAT_VERSION:
        raise ValueError(f"{path}: format_version is {version!r}, this program reads {FORMAT_VERSION}")
    return {name: _codebook(path, name, line) for name, line in tensors.items()}


def _codebook(path: Path, name: str, line: Any) -> Codebook:
    """Reads one tensor's metadata; whatever a hand or a disk has made of it, only a true codebook passes."""
    if not isinstance(line, dict) or line.keys() != {"num_bits", "n_1", "n_2"}:
        raise ValueError(f"{path}: {name!r} has metadata {line!r} where num_bits, n_1 and n_2 are wanted")
    num_bits, n_1, n_2 = line["num_bits"], line["n_1"], line["n_2"]
    try:
        codebook = Codebook(num_bits, n_1)
    except ValueError as error:
        raise ValueError(f"{path}: {name!r}: {error}") from None
    if codebook.n_2 != n_2:
        raise ValueError(f"{path}: {name!r} has {n_2=} where {num_bits=} and {n_1=} give {codebook.n_2}")
    return codebook


def _check_codes(path: Path, name: str, codebook: Codebook, codes: Tensor) -> None:
    if codes.dtype != torch.uint8:
        raise ValueError(f"{path}: {name!r} has codes of {codes.dtype}, torch.uint8 is wanted")
    used = used_codes(codes)
    wrong = used[codebook.decode(used, torch.float64).isnan()]  # a code of no level decodes to NaN
    if wrong.numel():
        raise ValueError(f"{path}: {name!r} has code {int(wrong[0])}, which is no level of {codebook}")
