"""Safetensors that no program wrote: every reader takes them, or refuses them in one short line.

10,000 of them, which takes minutes:

    pytest tests/test_safetensors_file.py -m long
"""

import json
import random
import struct
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from inq_ray import safetensors_file
from inq_ray.export.codes_file import CODES_FILE, read_codes
from inq_ray.export.errors import VerificationError
from inq_ray.export.formats import write_result
from inq_ray.export.model_file import MODEL_FILE, read_model
from inq_ray.export.result import Result
from inq_ray.export.verify import verify
from inq_ray.models import recognition
from inq_ray.models.weights.load import load_weights
from inq_ray.storage.address import locate
from inq_ray.training.checkpoint.files import TENSORS, DamagedError, open_checkpoint
from tests.export.results import quantized
from tests.training.checkpoint.test_fuzz import NEWER, sealed, write, written

NAMES = ("0.weight", "3.weight", "4.weight")


@pytest.fixture(autouse=True)
def only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file looks like is searched for among our networks only: torchvision's take seconds."""
    monkeypatch.setattr(recognition, "_candidates", lambda _: iter(list(recognition.OURS)[:1]))


def packed(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(dtype: Any, shape: Any, *offsets: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


# The readers: each takes a file's contents, and raises what it is documented to raise.


def as_weights(data: bytes, folder: Path) -> None:
    (folder / "a.safetensors").write_bytes(data)
    load_weights(quantized()[0], folder / "a.safetensors")


def as_model(data: bytes, folder: Path) -> None:
    (folder / "a.safetensors").write_bytes(data)
    read_model(folder / "a.safetensors")


def as_codes(data: bytes, folder: Path) -> None:
    (folder / "a.safetensors").write_bytes(data)
    read_codes(folder / "a.safetensors")


def as_result(file: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        network, states = quantized()
        write_result(folder, Result(network.state_dict(), states))
        (folder / file).write_bytes(data)
        verify(folder, NAMES)

    return read


def as_checkpoint(data: bytes, folder: Path) -> None:
    """Behind digests that match."""
    write(folder / "run", {NEWER: sealed({**written()[NEWER], TENSORS: data})})
    open_checkpoint(locate(str(folder / "run" / NEWER.name)))


def good(reader: str) -> bytes:
    """A file that the reader takes."""
    network, states = quantized()
    if reader == "checkpoint":
        return written()[NEWER][TENSORS]
    if "codes" in reader:
        lines = {
            name: {"num_bits": each.codebook.num_bits, "n_1": each.codebook.n_1, "n_2": each.codebook.n_2}
            for name, each in states.items()
        }
        metadata = {"inq_ray": json.dumps({"format_version": 1, "tensors": lines})}
        return save({name: each.codes for name, each in states.items()}, metadata)
    return save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})


READERS: dict[str, Callable[[bytes, Path], None]] = {
    "weights": as_weights,
    "model": as_model,
    "codes": as_codes,
    "verified model": as_result(MODEL_FILE),
    "verified codes": as_result(CODES_FILE),
    "checkpoint": as_checkpoint,
}


def refusal(reader: str, data: bytes, folder: Path) -> str:
    """Return the line with which a reader refuses, "" where it takes the file; any other exception is a fault."""
    try:
        READERS[reader](data, folder)
    except (DamagedError, VerificationError, ValueError) as error:
        line = str(error)
        assert not any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in line), repr(line)
        assert 0 < len(line) <= 300, line
        return line
    return ""


HOSTILE = {
    "a shape of 2^63": packed({"0.weight": entry("F32", [0, 2**63], 0, 0)}),
    "a shape of 2^62": packed({"0.weight": entry("F32", [2**62, 0, 2**62], 0, 0)}),
    "four bits": packed({"0.weight": entry("F4", [2, 8], 0, 8)}, bytes(8)),
    "a scale": packed({"0.weight": entry("F8_E8M0", [8], 0, 8)}, bytes(8)),
    "an unknown type": packed({"0.weight": entry("X7\x1b[31m", [8], 0, 8)}, bytes(8)),
    "control characters": packed({"a\nb\x1b[31m\u202e": entry("F32", [1], 0, 4)}, bytes(4)),
    "a name of a megabyte": packed({"a\x1b" * 500_000: entry("F32", [1], 0, 4)}, bytes(4)),
    "many dimensions": packed({"0.weight": entry("F32", [1] * 100_000, 0, 4)}, bytes(4)),
    "a header that is too long": struct.pack("<Q", 2**63) + b"{}",
    "a header past the end": struct.pack("<Q", 1000) + b"{}",
    "a nested header": packed(b"[" * 100_000),
    "metadata of a megabyte": packed({"__metadata__": {"inq_ray": "\x1b" * 1_000_000}}),
}


TENSORS_OF_ANY_NAME = ("a shape of 2^62", "control characters", "a name of a megabyte", "metadata of a megabyte")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_in_one_short_line(tmp_path: Path, reader: str, kind: str) -> None:
    refused = refusal(reader, HOSTILE[kind], tmp_path)
    # read_model alone does not ask what the tensors are.
    assert refused or (reader == "model" and kind in TENSORS_OF_ANY_NAME)


@pytest.mark.parametrize("reader", READERS)
def test_good_files_are_taken(tmp_path: Path, reader: str) -> None:
    assert refusal(reader, good(reader), tmp_path) == ""


# Mutations.

DTYPES = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "C64", "BOOL", "X"]
DTYPES += [f"{kind}{bits}" for kind in "IU" for bits in (8, 16, 32, 64)]
NUMBERS = [-1, 0, 1, 2**31, 2**62, 2**63, 2**64, 1.5, 1e300]
VALUES = [None, True, *NUMBERS, "", "\x1b[2J", "x" * 1000, [], [[]], {}, [1] * 70]
KEYS = ["", "0.weight", "__metadata__", "a\nb", "\x1b[31m", "\u202e", "\ud800", "n" * 10_000, "inq_ray", "dtype"]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return a file of which the header, the length of that, or some bytes are others."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    for _ in range(rng.randint(0, 2)):
        change(header, rng)
    text = json.dumps(header).encode()
    if rng.random() < 0.1:
        text = text[:-1] + b"," + text[1:]  # every name twice
    size = (
        len(text) if rng.random() < 0.9 else rng.choice([0, 1, len(text) - 1, len(text) + 1, 2**31, 2**63, 2**64 - 1])
    )
    data = size.to_bytes(8, "little") + text + body
    for _ in range(rng.choice([0, 0, 1, 3])):
        start = rng.randrange(len(data) + 1)
        data = data[:start] + rng.randbytes(rng.randrange(9)) + data[start + rng.randrange(9) :]
    return data[: rng.randrange(len(data) + 1)] if rng.random() < 0.05 else data


def change(header: dict[str, Any], rng: random.Random) -> None:
    names = [name for name, each in header.items() if isinstance(each, dict)]
    if not names:
        return
    each = header[name := rng.choice(names)]
    match rng.choice(["rename", "drop", "replace", "field", "dtype", "dimension", "offset", "metadata"]):
        case "rename":
            header[rng.choice(KEYS)] = header.pop(name)
        case "drop":
            del header[name]
        case "replace":
            header[name] = rng.choice(VALUES)
        case "field":
            each[rng.choice([*each, *KEYS])] = rng.choice(VALUES)
        case "dtype":
            each["dtype"] = rng.choice(DTYPES)
        case "dimension" if isinstance(each.get("shape"), list):
            each["shape"].insert(rng.randrange(len(each["shape"]) + 1), rng.choice([0, 1, 1, 2**62, *VALUES]))
        case "offset" if isinstance(each.get("data_offsets"), list) and each["data_offsets"]:
            each["data_offsets"][-1] = rng.choice([0, 1, 2**64 - 1, *VALUES])
        case _:
            metadata = header.setdefault("__metadata__", {})
            if isinstance(metadata, dict):
                metadata[rng.choice(KEYS)] = rng.choice([*VALUES, metadata_of(rng)])


def metadata_of(rng: random.Random) -> str:
    lines = {
        name: {"num_bits": rng.choice([5, *VALUES]), "n_1": rng.choice([-1, *VALUES]), "n_2": -8} for name in NAMES
    }
    return json.dumps({"format_version": rng.choice([1, 1, *VALUES]), "tensors": rng.choice([lines, lines, *VALUES])})


def search(num: int, folder: Path) -> tuple[int, int]:
    """Return how many mutations were refused, and how many taken."""
    refused = 0
    originals = {reader: good(reader) for reader in READERS}
    for seed in range(num):
        reader = list(READERS)[seed % len(READERS)]
        data = mutated(originals[reader], random.Random(seed))
        try:
            refused += bool(refusal(reader, data, folder))
        except BaseException:
            print(f"{reader} fails with the mutation of {seed=}")
            raise
    return refused, num - refused


def test_mutations(tmp_path: Path) -> None:
    refused, taken = search(300, tmp_path)
    assert refused > 100
    assert taken > 5


@pytest.mark.long
def test_many_mutations(tmp_path: Path) -> None:
    refused, taken = search(10_000, tmp_path)
    print(f"of 10,000 files {refused:,} were refused in one line, and {taken:,} taken")
    assert refused > 3000


def test_files_of_every_type_of_number_are_read(tmp_path: Path) -> None:
    dtypes = (
        torch.float64,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.int16,
        torch.uint32,
        torch.bool,
        torch.complex64,
    )
    tensors = {str(dtype): torch.zeros(3, dtype=dtype) for dtype in dtypes}
    safetensors_file.save(tmp_path / "a.safetensors", tensors, {})
    read, _ = safetensors_file.read(tmp_path / "a.safetensors")
    assert {name: tensor.dtype for name, tensor in read.items()} == {str(dtype): dtype for dtype in dtypes}


def test_weights_of_eight_bits_are_no_result(tmp_path: Path) -> None:
    network, states = quantized()
    write_result(tmp_path, Result(network.state_dict(), states))
    model = read_model(tmp_path / MODEL_FILE)
    for dtype in (torch.float8_e4m3fn, torch.int64, torch.complex64, torch.bool):
        safetensors_file.save(tmp_path / MODEL_FILE, {**model, "0.weight": model["0.weight"].to(dtype)}, {})
        with pytest.raises(VerificationError, match="codes stand for values of a floating dtype"):
            verify(tmp_path, NAMES)
