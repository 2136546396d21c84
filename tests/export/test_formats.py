"""The files of a result: what is written is read back; what is broken is refused; nothing is half written."""

import json
import os
import signal
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from inq_ray import safetensors_file
from inq_ray.core.channels import PERS, Per
from inq_ray.core.codebook import LEVELS, Codebook, Levels
from inq_ray.core.stage import apply, decide
from inq_ray.core.state import TensorState
from inq_ray.export.codes_file import CODES_FILE, read_codes
from inq_ray.export.formats import FORMATS, write_result
from inq_ray.export.model_file import MODEL_FILE, read_model
from inq_ray.export.result import Result
from inq_ray.export.verify import verify
from inq_ray.files.whole import whole
from tests.export.results import quantized, same_bits


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("per", PERS)
def test_what_is_written_is_read_back(tmp_path: Path, levels: Levels, per: Per) -> None:
    network, states = quantized(3, levels=levels, per=per)
    folder = tmp_path / "new" / "result"
    write_result(folder, Result(network.state_dict(), states))
    assert sorted(path.name for path in folder.iterdir()) == sorted(each.path(folder, "model").name for each in FORMATS)

    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 10), nn.Linear(10, 4))
    other.load_state_dict(load_file(folder / MODEL_FILE), strict=True)
    for name, tensor in network.state_dict().items():
        assert same_bits(tensor, other.state_dict()[name])
        assert same_bits(tensor, read_model(folder / MODEL_FILE)[name])

    codes = read_codes(folder / CODES_FILE)
    assert codes.keys() == states.keys()
    for name, (codebook, tensor) in codes.items():
        assert codebook == states[name].codebook
        assert torch.equal(tensor, states[name].codes)
    assert codes["4.weight"][0].n_1 == (None if per == "tensor" else (None,) * 4)
    assert verify(folder, states).num_tensors == 3


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("per", PERS)
def test_the_metadata_says_how_to_read_the_codes(tmp_path: Path, levels: Levels, per: Per) -> None:
    """A reader without this package: header length, JSON header, levels by the documented formula."""
    network, states = quantized(3, levels=levels, per=per)
    write_result(tmp_path, Result(network.state_dict(), states))
    data = (tmp_path / CODES_FILE).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    described = json.loads(header["__metadata__"]["inq_ray"])
    assert described["format_version"] == (1 if (levels, per) == ("paper", "tensor") else 2)
    line = described["tensors"]["3.weight"]
    begin, end = header["3.weight"]["data_offsets"]
    weights = []
    for place, code in enumerate(data[8 + length + begin : 8 + length + end]):
        n_2 = line["n_2"] if per == "tensor" else line["n_2"][place // 128]
        negative, index = code >> (line["num_bits"] - 1), code & ((1 << (line["num_bits"] - 1)) - 1)
        weights.append(0.0 if index == 0 else (-1) ** negative * 2.0 ** (n_2 + index - 1))
    assert weights == network.get_parameter("3.weight").flatten().tolist()


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    network, states = quantized()
    write_result(tmp_path / "a", Result(network.state_dict(), states))
    reversed_state = dict(reversed(network.state_dict().items()))
    write_result(tmp_path / "b", Result(reversed_state, dict(reversed(states.items()))))
    for name in (MODEL_FILE, CODES_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_shared_and_sliced_tensors_are_written_under_each_name(tmp_path: Path) -> None:
    network, states = quantized()
    base = torch.arange(12.0)
    extra = {
        "tied": network.get_parameter("3.weight"),
        "left": base[:6],
        "right": base[3:],
        "turned": base.view(3, 4).T,
    }
    write_result(tmp_path, Result({**network.state_dict(), **extra}, states))
    read = read_model(tmp_path / MODEL_FILE)
    for name, tensor in extra.items():
        assert same_bits(read[name], tensor.detach())
    write_result(tmp_path, Result(network.state_dict(), {}))
    assert read_codes(tmp_path / CODES_FILE) == {}


def test_a_live_weight_or_a_missing_tensor_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    network, states = quantized()
    model_state = network.state_dict()
    del model_state["3.weight"]
    with pytest.raises(ValueError, match=r"'3\.weight' of shape \[10, 128\] is not in the model's state"):
        write_result(tmp_path / "result", Result(model_state, states))
    with pytest.raises(ValueError, match="'note' of the model's state is not a tensor"):
        write_result(tmp_path / "result", Result({**network.state_dict(), "note": {"a": 1}}, states))
    states["0.weight"].frozen[0] = False
    with pytest.raises(ValueError, match=r"27 weights of '0\.weight' are still live"):
        write_result(tmp_path / "result", Result(network.state_dict(), states))
    assert not (tmp_path / "result").exists()


def test_weights_that_contradict_their_codes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    """As after loading float weights into a network whose last stage is done."""
    network, states = quantized()
    for changed in (torch.rand(10, 128), -network.get_parameter("3.weight").detach(), torch.zeros(10, 128).int()):
        with pytest.raises(ValueError, match=r"^'3\.weight' differs from its codes \(.*; float_state\("):
            write_result(tmp_path / "result", Result(network.state_dict() | {"3.weight": changed}, states))
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize("conv", [nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(1, 4, 3)], ids=str)
def test_convolutions_of_any_strides_are_written(conv: nn.Conv2d, tmp_path: Path) -> None:
    """With channels last a convolution of 1x1, or of one channel, has strides of its own."""
    conv = conv.to(memory_format=torch.channels_last)
    state = TensorState.live(conv.weight, 5)
    apply(conv.weight, state, decide(conv.weight, state, 1.0, name="weight", strategy="pruning", seed=0, stage=0))
    write_result(tmp_path, Result(conv.state_dict(), {"weight": state}))
    codebook, codes = read_codes(tmp_path / CODES_FILE)["weight"]
    assert same_bits(codebook.decode(codes, torch.float32), conv.weight)


def test_a_killed_writer_leaves_nothing_for_long(tmp_path: Path) -> None:
    network, states = quantized()
    child = os.fork()
    if child == 0:
        with whole(tmp_path / MODEL_FILE), whole(tmp_path / CODES_FILE) as beside:
            beside.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    write_result(tmp_path, Result(network.state_dict(), states))
    assert sorted(path.name for path in tmp_path.iterdir()) == [CODES_FILE, "model.inq.safetensors", MODEL_FILE]


def test_files_are_as_open_as_the_process_makes_them(tmp_path: Path) -> None:
    network, states = quantized()
    write_result(tmp_path, Result(network.state_dict(), states))
    (tmp_path / "other").touch()
    for name in (MODEL_FILE, CODES_FILE):
        assert (tmp_path / name).stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("failing", [MODEL_FILE, CODES_FILE])
def test_a_write_that_fails_leaves_the_old_files_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    network, states = quantized()
    write_result(tmp_path, Result(network.state_dict(), states))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def half_written(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        if failing in path.name:
            raise OSError("no space left on device")

    monkeypatch.setattr(safetensors_file, "save_file", half_written)
    with pytest.raises(ValueError, match=r"cannot write the result to .*: no space left on device; free some space"):
        write_result(tmp_path, Result(network.state_dict(), states))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def described(version: int = 1, **changes: Any) -> dict[str, str]:
    line = {"num_bits": 5, "n_1": -1, "n_2": -8} | changes
    return {"inq_ray": json.dumps({"format_version": version, "tensors": {"w": line}})}


GOOD = torch.tensor([0, 1, 8, 17, 24], dtype=torch.uint8)

BROKEN = {
    "no metadata": (GOOD, {}, "has no codes"),
    "no JSON": (GOOD, {"inq_ray": "{"}, "broken"),
    "JSON nested too deep": (GOOD, {"inq_ray": "[" * 200_000}, "broken"),
    "JSON of another kind": (GOOD, {"inq_ray": "[1]"}, "broken"),
    "a later version": (GOOD, {"inq_ray": '{"format_version": 3, "tensors": {}}'}, "format_version is 3"),
    "a tensor without metadata": (GOOD, {"inq_ray": '{"format_version": 1, "tensors": {}}'}, "'w' is not in both"),
    "a field more": (GOOD, described(scale=1), "expected num_bits, n_1 and n_2"),
    "9 bits": (GOOD, described(num_bits=9), "from 2 to 8, got 9"),
    "a boolean width": (GOOD, described(num_bits=True), "from 2 to 8, got True"),
    "a fractional exponent": (GOOD, described(n_1=-1.5), "from -126 to 127, got -1.5"),
    "an absurd exponent": (GOOD, described(n_1=10**9, n_2=10**9 - 7), "from -126 to 127, got 1000000000"),
    "channels of version 1": (GOOD, described(levels="paper"), "expected num_bits, n_1 and n_2"),
    "unknown levels": (GOOD, described(2, levels="all"), "levels must be one of paper, full, got 'all'"),
    "no channels": (GOOD, described(2, levels="full", n_1=[], n_2=[]), "n_1 must be None, a whole number"),
    "other channels": (GOOD, described(2, levels="full", n_1=[-1], n_2=[-15]), "has 1 channels, the tensor has 5"),
    "another n_2": (GOOD, described(n_2=-7), "n_2=-7, but"),
    "a negative zero": (torch.tensor([16], dtype=torch.uint8), described(), "code 16"),
    "a code past the levels": (torch.tensor([9], dtype=torch.uint8), described(), "code 9"),
    "a code of more bits": (torch.tensor([1, 32], dtype=torch.uint8), described(), "code 32"),
    "a code in a tensor of zeros": (torch.tensor([1], dtype=torch.uint8), described(n_1=None, n_2=None), "code 1,"),
    "another dtype": (GOOD.int(), described(), "torch.int32"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_codes_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    codes, metadata, message = BROKEN[kind]
    path = tmp_path / CODES_FILE
    save_file({"w": codes}, path, described())
    assert read_codes(path)["w"][0] == Codebook(5, -1) if codes is GOOD else True
    save_file({"w": codes}, path, metadata)
    with pytest.raises(ValueError, match=message.replace("[", r"\[")) as caught:
        read_codes(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_cut_short_or_something_else_are_refused(tmp_path: Path) -> None:
    network, states = quantized()
    write_result(tmp_path, Result(network.state_dict(), states))
    whole = (tmp_path / CODES_FILE).read_bytes()
    path = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match="no such file"):
        read_codes(path)
    for data in (b"", whole[:5], whole[:100], whole[:-1], whole + b"x", b"PK\x03\x04" + bytes(100)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            read_codes(path)
