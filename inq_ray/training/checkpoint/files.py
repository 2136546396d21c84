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

from inq_ray.training.checkpoint.place import Place
from inq_ray.training.checkpoint.retention import Entry
from inq_ray.training.checkpoint.snapshot import Snapshot

TENSORS = "tensors.safetensors"
FACTS = "facts.json"
MANIFEST = "manifest.json"
FORMAT_VERSION = 1


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
        manifest = json.loads(data)
        content, sha256 = manifest["content"], manifest["sha256"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DamagedError(f"{MANIFEST} is broken") from None
    if not isinstance(content, dict) or _sha256(_json(content)) != sha256:
        raise DamagedError(f"{MANIFEST} is not as it was written: its sha256 differs")
    # What follows has the digest that this program gave it: only another version can have written something else.
    if content.get("format_version") != FORMAT_VERSION:
        raise DamagedError(f"its format is {content.get('format_version')!r}, this program reads {FORMAT_VERSION}")
    files = {name: (file["bytes"], file["sha256"]) for name, file in content["files"].items()}
    entry = Entry(
        place=Place(**content["place"]),
        is_stage_end=content["is_stage_end"],
        top1=content["top1"],
        num_bytes=len(data) + sum(size for size, _ in files.values()),
    )
    return Manifest(entry, files)


def read_snapshot(manifest: Manifest, read: Callable[[str, int], bytes]) -> Snapshot:
    """Reads the files that a manifest names, and believes nothing whose digest differs.

    Args:
        manifest: of the checkpoint.
        read: contents of a file, by its name and size.

    Returns:
        The compact snapshot.

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
        return Snapshot(safetensors.torch.load(contents[TENSORS]), json.loads(contents[FACTS]))
    except (KeyError, SafetensorError, ValueError) as error:
        raise DamagedError(f"its digests hold, but it cannot be read ({error})") from error


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":")).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
