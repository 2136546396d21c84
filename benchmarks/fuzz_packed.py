"""Damaged packed files: valid containers with a wrong inside, read until one crashes, hangs or takes too much memory.

Each file is a good one in which a few values of the index, bytes of the parts, or both have changed; all digests that
lead to the change are made right again, so that the reader gets far. A file must be taken or refused by a ValueError of
one line, within seconds, and within the memory of the shapes in the container's header.

    python benchmarks/fuzz_packed.py 1000000 [SEED]
"""

import copy
import hashlib
import json
import random
import resource
import signal
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inq_ray import safetensors_file
from inq_ray.core.channels import Per
from inq_ray.core.stage import apply, decide
from inq_ray.core.state import TensorState
from inq_ray.export.packed import reader, writer
from inq_ray.export.result import Result

_MOST_SECONDS = 20
_MOST_MORE_MEMORY = 64 * 2**20
_ODD: list[Any] = [
    *(None, True, False, "", "x", "plain", "deflate", "paper", "full", "float32", "int64", "bfloat16", "0.weight"),
    *(-1, 0, 1, 2, 5, 8, 9, 127, 128, 2**31, 2**47, 2**48, 2**63, 2**70, 0.5, 1e308, [], {}, [0], [2**40, 2**40]),
    *([0, 2**47, 2**47], [2**47, 2**47, 2**47, 0], [1] * 65, [None] * 8, [3] * 8, "\ud800", "a" * 1000),
]


def main(count: int, seed: int) -> None:
    """Read damaged files; print what they were refused for."""
    drawn = random.Random(seed)
    originals = [_original(bits, per) for bits in (2, 3, 5) for per in ("tensor", "channel")]
    reasons: Counter[str] = Counter()
    signal.signal(signal.SIGALRM, _hang)
    begin, memory = time.perf_counter(), 0
    for number in range(count):
        tensors, metadata = _damaged(*drawn.choice(originals), drawn)
        signal.alarm(_MOST_SECONDS)
        try:
            reader.unpack("file", tensors, metadata)
        except ValueError as error:
            message = str(error)
            assert len(message) <= 300, message
            assert message.isprintable(), message
            reasons["".join(each for each in message if not each.isdigit())[:60]] += 1
        except BaseException:
            print(f"file {number} of seed {seed}: {metadata}, index {_index_of(tensors)[:2000]!r}", flush=True)
            raise
        else:
            reasons["taken"] += 1
        signal.alarm(0)
        if number == 1000:
            memory = _peak()
        if (number + 1) % 100_000 == 0:
            print(f"{number + 1:,} files in {time.perf_counter() - begin:,.0f} s", flush=True)
    grown = _peak() - memory
    assert count <= 1000 or grown < _MOST_MORE_MEMORY, grown
    seconds = time.perf_counter() - begin
    print(f"{count:,} files in {seconds:,.0f} s: no crash, no hang, {grown / 2**20:.0f} MB more memory at most")
    for reason, times in reasons.most_common(30):
        print(f"{times:9,}  {reason}")


def _original(bits: int, per: Per) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the parts of a good file, and its index."""
    torch.manual_seed(bits)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(16, 8))
    states = {}
    for name in ("0.weight", "2.weight"):
        weight = network.get_parameter(name)
        states[name] = TensorState.live(weight, bits, "full", per)
        apply(weight, states[name], decide(weight, states[name], 1.0, name=name, strategy="pruning", seed=0, stage=0))
    state = dict(network.state_dict())
    result = Result({**state, "tied": state["0.bias"]}, states, {"top1": 9.5, "names": ["a", "b"]})
    with tempfile.TemporaryDirectory() as folder:
        writer.write(Path(folder) / "file", result)
        tensors, _ = safetensors_file.read(Path(folder) / "file")
    return tensors, _index_of(tensors)


def _index_of(tensors: dict[str, Tensor]) -> Any:
    return json.loads(zlib.decompress(tensors["index"].numpy().tobytes()))


def _damaged(tensors: dict[str, Tensor], index: Any, drawn: random.Random) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the parts and the metadata of a damaged file."""
    tensors, index = dict(tensors), copy.deepcopy(index)
    kind = drawn.randrange(4)
    if kind != 1:
        for _ in range(drawn.choice((1, 1, 2, 5))):
            lines = index.get("tensors") if isinstance(index, dict) else None
            if isinstance(lines, list) and lines and drawn.randrange(10):
                line = drawn.randrange(len(lines))
                lines[line] = _changed(lines[line], drawn)
            else:
                index = _changed(index, drawn)
    if kind != 0 and isinstance(index, dict):
        _damage_part(tensors, index, drawn)
    stored = zlib.compress(json.dumps(index).encode(), 1)
    if drawn.randrange(50) == 0:
        stored = _bytes_changed(stored, drawn)
    tensors["index"] = _as_tensor(stored)
    described = {"format_version": 1, "index_sha256": hashlib.sha256(stored).hexdigest()}
    return tensors, {"inq": json.dumps(described)}


def _changed(value: Any, drawn: random.Random) -> Any:
    """Return JSON in which one value is another."""
    if not isinstance(value, dict | list) or not value or drawn.randrange(30) == 0:
        return copy.deepcopy(drawn.choice(_ODD))
    key = drawn.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if drawn.randrange(12) == 0:
        del value[key]
    elif isinstance(value[key], int) and drawn.randrange(2):
        value[key] += drawn.choice((-1, 1))
    else:
        value[key] = _changed(value[key], drawn)
    return value


def _damage_part(tensors: dict[str, Tensor], index: Any, drawn: random.Random) -> None:
    """Change bytes of a part, and make digests in the index right again where the index still has its form."""
    name = drawn.choice([each for each in tensors if each != "index"])
    data = _bytes_changed(tensors[name].numpy().tobytes(), drawn)
    size = tensors[name].element_size()
    tensors[name] = _as_tensor(data[: len(data) // size * size]).view(tensors[name].dtype)
    lines, others = index.get("tensors"), index.get("others")
    if isinstance(others, dict) and isinstance(others.get(name), dict):
        others[name]["sha256"] = reader.sha256(tensors[name])
    if name == "codes" and isinstance(lines, list):
        position = 0
        for line in lines:
            if isinstance(line, dict) and isinstance(line.get("bytes"), int) and 0 <= line["bytes"] < 2**40:
                part = data[position : position + line["bytes"]]
                line["sha256"], position = hashlib.sha256(part).hexdigest(), position + line["bytes"]


def _bytes_changed(data: bytes, drawn: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(drawn.choice((1, 1, 3, 20))):
        kind = drawn.randrange(4)
        if kind == 0:
            changed[: drawn.randrange(len(changed) + 1)] = b""
        elif kind == 1:
            changed += bytes(drawn.randrange(256) for _ in range(drawn.randrange(9)))
        elif changed:
            changed[drawn.randrange(len(changed))] = drawn.randrange(256)
    return bytes(changed)


def _as_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _peak() -> int:
    """Return the most memory so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _hang(number: int, frame: object) -> None:  # noqa: ARG001  # as signal calls it
    raise TimeoutError(f"a file took more than {_MOST_SECONDS} s")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
