"""The files of a checkpoint: tensors, facts, and a manifest that says whether the others are whole.

    tensors.safetensors    all tensors, compact
    facts.json             the rest
    manifest.json          {"content": {...}, "sha256": of the content}, where the content is format_version, where the
                           checkpoint was taken, its accuracy, and sha256 and size of the other files

The manifest is written last: a folder without one is no checkpoint.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError

from inq_ray.training.checkpoint.retention import Entry
from inq_ray.training.checkpoint.snapshot import Snapshot
from inq_ray.training.checkpoint.validate import read_position, short

TENSORS = "tensors.safetensors"
FACTS = "facts.json"
MANIFEST = "manifest.json"
FORMAT_VERSION = 1
# More is refused before it is read: metrics of a million epochs are less, and a network of 10^12 weights.
LARGEST_JSON_BYTES = 2**29
LARGEST_BYTES = 2**44


class DamagedError(ValueError):
    """A checkpoint is not what was written; says what is wrong with it."""


class Manifest(NamedTuple):
    """What a manifest says.

    Attributes:
        entry: the checkpoint, in short.
        files: size and sha256 by file name.
    """

    entry: Entry
    files: dict[str, tuple[int, str]]


def encode(snapshot: Snapshot, *, is_stage_end: bool, top1: float | None) -> dict[str, bytes]:
    """Contents by file name, in the order in which they are to be written; the same snapshot gives the same bytes.

    Args:
        snapshot: compact; its tensors contiguous, on the CPU, no two in the same memory.
        is_stage_end: whether its stage ends there.
        top1: accuracy in percent that was measured there; None if none was.
    """
    files = {TENSORS: safetensors.torch.save(snapshot.tensors), FACTS: _json(snapshot.facts)}
    content = {
        "format_version": FORMAT_VERSION,
        "place": snapshot.facts["place"],
        "is_stage_end": is_stage_end,
        "top1": top1,
        "files": {name: {"bytes": len(data), "sha256": _sha256(data)} for name, data in files.items()},
    }
    return {**files, MANIFEST: _json({"content": content, "sha256": _sha256(_json(content))})}


def read_manifest(data: bytes) -> Manifest:
    """Reads a manifest.

    Raises:
        DamagedError: it is not as it was written, or of another version of this program.
    """
    try:
        manifest = _read_json(data)
        content, sha256 = manifest["content"], manifest["sha256"]
        differs = not isinstance(content, dict) or _sha256(_json(content)) != sha256
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DamagedError(f"{MANIFEST} is broken") from None
    if differs:
        raise DamagedError(f"{MANIFEST} is not as it was written: its sha256 differs")
    # What follows has the digest that this program gave it: only another version can have written something else.
    version = content.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise DamagedError(f"its format is {short(version)}, this program reads {FORMAT_VERSION}")
    try:
        return _manifest(content, len(data))
    except ValueError as error:
        raise DamagedError(f"{MANIFEST} says what cannot be: {error}") from error


def _manifest(content: dict[str, Any], num_bytes: int) -> Manifest:
    """What the content says, nothing of it believed before.

    Raises:
        ValueError: it cannot be.
    """
    if content.keys() != {"format_version", "place", "is_stage_end", "top1", "files"}:
        raise ValueError(f"it speaks of {short(sorted(content))}")
    top1, files = content["top1"], content["files"]
    if type(content["is_stage_end"]) is not bool:
        raise ValueError(f"is_stage_end is {short(content['is_stage_end'])}")
    if top1 is not None and not (type(top1) in (int, float) and 0 <= top1 <= 100):
        raise ValueError(f"top1 is {short(top1)}")
    if not isinstance(files, dict) or files.keys() != {TENSORS, FACTS}:
        raise ValueError(f"its files are {short(files)}")
    sizes = {name: _size_and_sha256(name, file) for name, file in files.items()}
    entry = Entry(
        position=read_position(content["place"]),
        is_stage_end=content["is_stage_end"],
        top1=top1,
        num_bytes=num_bytes + sum(size for size, _ in sizes.values()),
    )
    return Manifest(entry, sizes)


def _size_and_sha256(name: str, file: Any) -> tuple[int, str]:
    if not isinstance(file, dict) or file.keys() != {"bytes", "sha256"}:
        raise ValueError(f"{name} is {short(file)}")
    size, sha256 = file["bytes"], file["sha256"]
    most = LARGEST_JSON_BYTES if name == FACTS else LARGEST_BYTES
    if type(size) is not int or not 0 <= size <= most or not isinstance(sha256, str):
        raise ValueError(f"{name} has {short(size)} bytes, sha256 {short(sha256)}")
    return size, sha256


def read_snapshot(manifest: Manifest, read: Callable[[str, int], bytes]) -> Snapshot:
    """Reads the files that a manifest names, and believes nothing whose digest differs.

    Args:
        manifest: of the checkpoint.
        read: contents of a file, by its name and size.

    Returns:
        The compact snapshot, of which nothing is checked but its digests.

    Raises:
        DamagedError: a file is not as it was written; names it.
    """
    contents = {}
    for name, (size, sha256) in manifest.files.items():
        data = read(name, size)
        if len(data) != size:
            raise DamagedError(f"{name} has {len(data)} bytes of {size}")
        if _sha256(data) != sha256:
            raise DamagedError(f"{name} is not as it was written: its sha256 differs")
        contents[name] = data
    try:
        return Snapshot(safetensors.torch.load(contents[TENSORS]), _read_json(contents[FACTS]))
    # RuntimeError, OverflowError: torch, of shapes that no tensor has. KeyError: of dtypes that torch has not.
    except (KeyError, OverflowError, RecursionError, RuntimeError, SafetensorError, ValueError) as error:
        raise not_meant(error) from error


def not_meant(error: Exception) -> DamagedError:
    """What to say of a checkpoint that is as it was written, but cannot have been written by a run."""
    return DamagedError(f"its digests hold, but it cannot be read ({short(str(error), 300)})")


def _read_json(data: bytes) -> Any:
    """A value from JSON, numbers finite.

    Raises:
        ValueError: it is no JSON, or has other numbers.
    """
    return json.loads(data, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":")).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
