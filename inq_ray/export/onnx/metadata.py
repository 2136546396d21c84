"""Metadata of an exported ONNX file: what its recipient can check it against.

The key `inq` has JSON: `format_version`, `layout`, `facts` and `result_digest` of the packed file, and in `tensors` the
name, shape, bits, levels and n_1 of each quantized tensor, with the SHA-256 of its codes (one byte per code, row by
row). The key `inq_sha256` has the SHA-256 of the file, computed with 64 zeros in its place.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from onnx import ModelProto

from inq_ray.core.channels import AnyCodebook, codebook_of
from inq_ray.export.packed.reader import PackedTensor, checked_shape, sha256
from inq_ray.files.shown import quoted

FORMAT_VERSION = 1
_KEY = "inq"
_DIGEST_KEY = "inq_sha256"
_NO_DIGEST = b"0" * 64
# The entry in a file: its key, then the tag and length of its value in protobuf.
_DIGEST_ENTRY = _DIGEST_KEY.encode() + b"\x12\x40"


@dataclass(frozen=True, kw_only=True)
class Described:
    """A quantized tensor in the metadata.

    Attributes:
        codebook: Its levels.
        shape: Its shape.
        sha256: SHA-256 of its codes.
    """

    codebook: AnyCodebook
    shape: tuple[int, ...]
    sha256: str


def sealed(
    proto: ModelProto, quantized: Mapping[str, PackedTensor], layout: str, facts: Mapping[str, Any], digest: str
) -> bytes:
    """Return the bytes of an ONNX file with its metadata.

    Args:
        proto: The model; metadata are added to it.
        quantized: Codes and codebooks by parameter name.
        layout: How the graph contains the codes.
        facts: Facts of the packed file.
        digest: Digest of the packed file's tensors.
    """
    described = {
        "format_version": FORMAT_VERSION,
        "layout": layout,
        "facts": dict(facts),
        "result_digest": digest,
        "tensors": [
            {
                "name": name,
                "shape": list(tensor.codes.shape),
                "bits": tensor.codebook.num_bits,
                "levels": tensor.codebook.levels,
                "n_1": tensor.codebook.n_1,
                "codes_sha256": sha256(tensor.codes),
            }
            for name, tensor in quantized.items()
        ],
    }
    return with_metadata(proto, described)


def with_metadata(proto: ModelProto, described: Mapping[str, Any]) -> bytes:
    """Return the bytes of an ONNX file with these metadata, and the digest of both."""
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    proto.metadata_props.add(key=_KEY, value=text)
    proto.metadata_props.add(key=_DIGEST_KEY, value=_NO_DIGEST.decode())
    data: bytes = proto.SerializeToString(deterministic=True)
    begin, end = _place_of_digest(data)
    return data[:begin] + hashlib.sha256(data).hexdigest().encode() + data[end:]


def parsed(data: bytes) -> tuple[ModelProto, dict[str, Any]]:
    """Return the model and the metadata of an exported file, which may be damaged.

    Raises:
        ValueError: It is no ONNX file, or none that inq_ray exported.
    """
    try:
        proto = ModelProto.FromString(data)
    except DecodeError:
        raise ValueError("is damaged, or not an ONNX file") from None
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    if _KEY not in entries:
        raise ValueError("was not exported by inq_ray, or another program removed its metadata")
    try:
        described = json.loads(entries[_KEY])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"metadata are damaged ({quoted(error)})") from None
    if not isinstance(described, dict) or described.get("format_version") != FORMAT_VERSION:
        version = described.get("format_version") if isinstance(described, dict) else None
        raise ValueError(f"format_version is {quoted(version)}, but this program reads {FORMAT_VERSION}")
    return proto, described


def check_digest(data: bytes) -> None:
    """Check that no byte of a file has changed since it was exported.

    Raises:
        ValueError: One has.
    """
    begin, end = _place_of_digest(data)
    digest = hashlib.sha256(data[:begin])
    digest.update(_NO_DIGEST)
    digest.update(data[end:])
    if digest.hexdigest().encode() != data[begin:end]:
        raise ValueError("has changed since it was exported: its SHA-256 is not that in its metadata")


def described_tensors(described: Mapping[str, Any]) -> dict[str, Described]:
    """Return the quantized tensors in the metadata, which may be damaged.

    Raises:
        ValueError: They are damaged.
    """
    lines = described.get("tensors")
    if not isinstance(lines, list):
        raise ValueError("metadata are damaged: they have no list of tensors")
    found: dict[str, Described] = {}
    for line in lines:
        if not isinstance(line, dict) or not isinstance(name := line.get("name"), str) or name in found:
            raise ValueError(f"metadata are damaged: {quoted(line)} does not describe a tensor")
        shape, levels = checked_shape(name, line.get("shape")), line.get("levels")
        try:
            codebook = codebook_of(line.get("bits"), line.get("n_1"), levels)  # type: ignore[arg-type]  # checked there
        except ValueError as error:
            raise ValueError(f"{quoted(name)}: {error}") from None
        found[name] = Described(codebook=codebook, shape=tuple(shape), sha256=str(line.get("codes_sha256")))
    return found


def _place_of_digest(data: bytes) -> tuple[int, int]:
    if data.count(_DIGEST_ENTRY) != 1:
        raise ValueError(f"does not have {_DIGEST_KEY} in its metadata once")
    begin = data.index(_DIGEST_ENTRY) + len(_DIGEST_ENTRY)
    return begin, begin + len(_NO_DIGEST)
