"""Verification for recipients of a network in memory, a packed file, an exported ONNX file, or a run's folder."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from inq_ray.core.codebook import MAX_BITS, num_exponents
from inq_ray.core.unwrap import plain_name, unwrap
from inq_ray.export.codes_file import CODES_FILE, read_codes
from inq_ray.export.errors import VerificationError
from inq_ray.export.formats import FORMATS
from inq_ray.export.packed import reader
from inq_ray.export.table import TensorRow, row_of, rows_of
from inq_ray.export.verify import verify as verify_folder
from inq_ray.files.extra import install_command
from inq_ray.files.shown import one_line, shown
from inq_ray.models.selection import choose


def verify(model_or_path: nn.Module | str | Path) -> tuple[TensorRow, ...]:
    """Check that every quantized weight is 0 or ±2^k.

    Args:
        model_or_path: A packed file (NAME.inq.safetensors) or an ONNX file that `inq-ray export` wrote, whose digests
            are checked too; a run's folder, whose files must also agree with each other; or a network, in which the
            weight of every convolution and linear layer must be quantized.

    Returns:
        A row for each quantized tensor; of a file or folder also for each float one.

    Raises:
        VerificationError: A weight, code or digest is wrong; names the first such tensor.
        ValueError: The file is an ONNX file, and the library onnx is not installed.

    Examples:
        >>> layer = nn.Linear(3, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -0.25, 0.0]]))
        >>> [row.name for row in verify(layer)]
        ['weight']
        >>> _ = layer.weight.data.fill_(0.3)
        >>> verify(layer)
        Traceback (most recent call last):
        inq_ray.export.errors.VerificationError: ...
    """
    if isinstance(model_or_path, nn.Module):
        return _verify_model(model_or_path)
    path = Path(model_or_path)
    return rows_of(verified(path))


def verified(path: Path) -> reader.PackedFile:
    """Check the packed file of a result and all files next to it, or an ONNX file, and return its contents.

    Args:
        path: A packed file, an exported ONNX file or a run's folder.

    Raises:
        VerificationError: A file is wrong, or there is no result.
        ValueError: The library onnx, which the file needs, is not installed.
    """
    read = _reader_of(path)
    try:
        if path.is_dir():
            verify_folder(path, read_codes(path / CODES_FILE))
        return read(packed_in(path))
    except ValueError as error:
        raise VerificationError(None, str(error)) from error


def read_result(path: Path) -> reader.PackedFile:
    """Return the contents of a packed file, of that in a run's folder, or of an exported ONNX file.

    Raises:
        ValueError: It is missing or damaged, or the library that reads it is not installed.
    """
    return _reader_of(path)(packed_in(path))


def is_onnx(path: Path) -> bool:
    """Return whether a file is an ONNX file by its name."""
    return path.suffix == ".onnx"


def _reader_of(path: Path) -> Callable[[Path], reader.PackedFile]:
    if not is_onnx(path):
        return reader.read
    try:
        from inq_ray.export.onnx.reader import read
    except ModuleNotFoundError as error:
        raise ValueError(one_line(f"{path} needs {error.name}: {install_command('onnx', 'onnx')}")) from error
    return read


def packed_in(path: Path) -> Path:
    """Return the packed file of a run's folder, or the path itself if it is not a folder.

    Raises:
        ValueError: The folder has no packed file, or several.
    """
    if not path.is_dir():
        return path
    packed = next(each for each in FORMATS if each.file.endswith(reader.SUFFIX))
    try:
        return packed.find(path)
    except VerificationError as error:
        raise ValueError(one_line(f"{shown(path)}: {error.reason}")) from error


def _verify_model(model: nn.Module) -> tuple[TensorRow, ...]:
    model = unwrap(model)
    state = {plain_name(name): tensor for name, tensor in model.state_dict(keep_vars=True).items()}
    try:
        chosen = list(choose(model, MAX_BITS))
    except ValueError as error:
        raise VerificationError(None, str(error)) from error
    rows, wrong = [], {}
    for name in chosen:
        found = _row(name, state[name].detach())
        if isinstance(found, str):
            wrong[name] = found
        else:
            rows.append(found)
    if wrong:
        name, reason = next(iter(wrong.items()))
        raise VerificationError(name, f"{reason}; {len(wrong)} of {len(chosen)} tensors are not quantized")
    return tuple(rows)


def _row(name: str, weight: Tensor) -> TensorRow | str:
    """Return the row of a tensor of powers of two, or the reason why it is not one."""
    mantissa, exponent = torch.frexp(weight.double())
    nonzero = weight != 0
    num_wrong = int((nonzero & (mantissa.abs() != 0.5)).sum())
    if num_wrong:
        return f"{num_wrong} of {weight.numel()} weights are neither 0 nor a power of two"
    used = exponent[nonzero] - 1
    span = (int(used.min()), int(used.max())) if used.numel() else None
    bits = 2 if span is None else _bits_for(span[1] - span[0] + 1)
    if bits is None:
        return f"its exponents, {span}, need more than {MAX_BITS} bits"
    return row_of(name, weight, bits, "full", math.ceil(weight.numel() * bits / 8))


def _bits_for(count: int) -> int | None:
    """Return the fewest bits whose codes can represent ``count`` exponents; None = more than MAX_BITS."""
    return next((bits for bits in range(2, MAX_BITS + 1) if num_exponents(bits, "full") >= count), None)
