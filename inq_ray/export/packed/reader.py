"""Reader of packed files, which checks everything before it is used."""

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inq_ray import safetensors_file
from inq_ray.core.channels import AnyCodebook, codebook_of
from inq_ray.core.digest import digest_tensors, summary
from inq_ray.export.level_check import check_codes
from inq_ray.export.packed.coding import ENCODINGS, Encoding, decompress_codes
from inq_ray.files.shown import one_line, quoted

SUFFIX = ".inq.safetensors"
FORMAT_VERSION = 1
METADATA_KEY = "inq"
# Limit of the decompressed index: a million tensors have about 100 MB.
_MOST_INDEX_BYTES = 128 * 2**20
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in safetensors_file.DTYPES}


@dataclass(frozen=True, kw_only=True)
class PackedTensor:
    """A quantized tensor of a packed file.

    Attributes:
        codebook: Its levels.
        codes: uint8, the weight's shape.
        num_bytes: Size of its codes in the file.
    """

    codebook: AnyCodebook
    codes: Tensor
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class PackedFile:
    """Contents of a packed file, all checked.

    Attributes:
        state: Every tensor of the network's state by name, in order, on the CPU; an argument for `load_state_dict`.
        quantized: The quantized ones among them.
        facts: Facts about the network, stored when it was written; see docs/format.md.
        digest: SHA-256 over all tensors of the state, :func:`inq_ray.core.digest.summary`.
    """

    state: dict[str, Tensor]
    quantized: dict[str, PackedTensor]
    facts: dict[str, Any]
    digest: str


def read(path: str | Path) -> PackedFile:
    """Read a packed file with its codes and facts.

    Raises:
        ValueError: It is missing, damaged or not a packed file; one line that names it.
    """
    return unpack(path, *safetensors_file.read(Path(path)))


def unpack(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> PackedFile:
    """Return what a packed file holds.

    Args:
        path: The file, for messages.
        tensors: Tensors of its container.
        metadata: Metadata of its container.

    Raises:
        ValueError: It is damaged or no packed file; one line that names it.
    """
    try:
        return _unpack(tensors, _read_index(tensors, metadata))
    except ValueError as error:
        raise ValueError(one_line(f"{path}: {error}")) from error


def _read_index(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the index, after checking its digest."""
    if METADATA_KEY not in metadata or "index" not in tensors:
        raise ValueError(f"is not a packed file of inq_ray, which every run writes as NAME{SUFFIX}")
    described = _json(metadata[METADATA_KEY], "metadata")
    if described.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"format_version is {quoted(described.get('format_version'))}, but this program reads {FORMAT_VERSION}: "
            "update inq_ray"
        )
    stored = _bytes(tensors["index"], "index")
    if hashlib.sha256(stored).hexdigest() != described.get("index_sha256"):
        raise ValueError("index is damaged: its SHA-256 is not that in the metadata")
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(stored, _MOST_INDEX_BYTES)
    except zlib.error as error:
        raise ValueError(f"index is damaged ({error})") from None
    if not inflate.eof or inflate.unused_data:
        raise ValueError(f"index is damaged, or has more than {_MOST_INDEX_BYTES:,} bytes")
    return _json(text, "index")


def _json(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is damaged ({quoted(error)})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{what} is damaged: not a JSON object")
    return found


def _unpack(tensors: Mapping[str, Tensor], index: Mapping[str, Any]) -> PackedFile:
    lines, facts, others = index.get("tensors"), index.get("facts"), index.get("others")
    if not isinstance(lines, list) or not isinstance(facts, dict) or not isinstance(others, dict):
        raise ValueError("index is damaged: it needs tensors, facts and others")
    if tensors.keys() != {"codes", "index", *others}:
        raise ValueError(f"has the parts {quoted(sorted(tensors))}, but its index names {quoted(sorted(others))}")
    codes = _Cursor(_bytes(tensors["codes"], "codes"))
    rest = {name: _Blob.checked(name, tensors[name], line) for name, line in others.items()}
    state: dict[str, Tensor] = {}
    quantized: dict[str, PackedTensor] = {}
    for line in lines:
        name, shape, dtype = _checked(line, state)
        if "bits" in line:
            try:
                quantized[name] = _packed_tensor(line, shape, codes)
                check_codes(name, quantized[name].codebook, quantized[name].codes)
            except ValueError as error:
                raise ValueError(f"{quoted(name)}: {error}") from None
            state[name] = quantized[name].codebook.decode(quantized[name].codes, dtype)
        elif "same_as" in line:
            same = line["same_as"]
            if not isinstance(same, str) or same not in state or state[same].shape != torch.Size(shape):
                raise ValueError(f"{quoted(name)} is the same as {quoted(same)}, which is not before it")
            state[name] = state[same]
        elif line["dtype"] in rest:
            state[name] = rest[line["dtype"]].take(name, shape)
        else:
            raise ValueError(f"{quoted(name)} has dtype {line['dtype']}, but there is no part of that dtype")
    if codes.num_left or any(blob.num_left for blob in rest.values()):
        raise ValueError("has more data than its index names")
    digest = summary(digest_tensors(state))
    if digest != index.get("digest"):
        raise ValueError("its tensors do not have the digest of the index")
    return PackedFile(state=state, quantized=quantized, facts=facts, digest=digest)


def _checked(line: Any, state: Mapping[str, Tensor]) -> tuple[str, list[int], torch.dtype]:
    """Return name, shape and dtype of a tensor's line in the index."""
    if not isinstance(line, dict) or not isinstance(name := line.get("name"), str):
        raise ValueError(f"index is damaged: {quoted(line)} does not describe a tensor")
    shape, dtype = line.get("shape"), line.get("dtype")
    shape = checked_shape(name, shape)
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"{quoted(name)} has the dtype {quoted(dtype)}")
    if name in state:
        raise ValueError(f"{quoted(name)} occurs twice")
    return name, shape, _DTYPES[dtype]


def checked_shape(name: str, shape: Any) -> list[int]:
    """Return a shape from a file, after checking that a tensor can have it.

    Args:
        name: Name of the tensor, for messages.
        shape: The shape, of any type.

    Raises:
        ValueError: It cannot.
    """
    is_shape = isinstance(shape, list) and len(shape) <= safetensors_file.MOST_DIMENSIONS
    # Sizes of 0 are left out: torch multiplies the others all the same.
    if not is_shape or not all(type(size) is int and size >= 0 for size in shape) or _count(shape, least=1) >= 2**48:
        raise ValueError(f"{quoted(name)} has the shape {quoted(shape)}")
    return list(shape)


def _packed_tensor(line: Mapping[str, Any], shape: list[int], codes: "_Cursor") -> PackedTensor:
    levels: Any = line.get("levels")  # checked like the others
    codebook = codebook_of(line["bits"], line.get("n_1"), levels)
    encoding: Encoding | None = line.get("encoding")
    if encoding not in ENCODINGS:
        raise ValueError(f"has the encoding {quoted(encoding)}, but known are {', '.join(ENCODINGS)}")
    stored = codes.take(line.get("bytes"))
    if hashlib.sha256(stored).hexdigest() != line.get("sha256"):
        raise ValueError("is damaged: the SHA-256 of its codes is not that in the index")
    unpacked = decompress_codes(stored, encoding, codebook.num_bits, _count(shape)).reshape(shape)
    return PackedTensor(codebook=codebook, codes=unpacked, num_bytes=len(stored))


class _Cursor:
    """The bytes of all codes, read one tensor after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def num_left(self) -> int:
        return len(self._data) - self._position

    def take(self, size: Any) -> bytes:
        if type(size) is not int or not 0 <= size <= self.num_left:
            raise ValueError(f"has {quoted(size)} bytes of codes, but {self.num_left} are left")
        self._position += size
        return self._data[self._position - size : self._position]


@dataclass
class _Blob:
    """All unquantized tensors of one dtype, one after the other."""

    data: Tensor
    num_taken: int = 0

    @classmethod
    def checked(cls, name: str, data: Tensor, line: Any) -> "_Blob":
        if name not in _DTYPES or data.dtype != _DTYPES[name] or data.dim() != 1:
            raise ValueError(f"has a part {quoted(name)} of {data.dtype} and shape {quoted(list(data.shape))}")
        if not isinstance(line, dict) or sha256(data) != line.get("sha256"):
            raise ValueError(f"{quoted(name)} is damaged: its SHA-256 is not that in the index")
        return cls(data)

    @property
    def num_left(self) -> int:
        return self.data.numel() - self.num_taken

    def take(self, name: str, shape: list[int]) -> Tensor:
        count = _count(shape)
        if count > self.num_left:
            raise ValueError(f"{quoted(name)} has {count} values, but {self.num_left} are left")
        self.num_taken += count
        return self.data[self.num_taken - count : self.num_taken].reshape(shape).clone()


def _count(shape: list[int], least: int = 0) -> int:
    """Return the number of values of a shape; each size counts at least as `least`."""
    return math.prod(max(least, size) for size in shape)


def _bytes(tensor: Tensor, name: str) -> bytes:
    if tensor.dtype != torch.uint8 or tensor.dim() != 1:
        raise ValueError(f"{name} has dtype {tensor.dtype} and {tensor.dim()} dimensions, expected bytes")
    return tensor.numpy().tobytes()


def sha256(tensor: Tensor) -> str:
    """Return the SHA-256 (hex) of a tensor's bytes, row by row."""
    flat = tensor.contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data if flat.numel() else b"").hexdigest()
