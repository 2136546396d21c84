"""Exported ONNX files by their reader: what was exported is right, what has changed is found, in a line."""

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import inq_ray
from inq_ray.cli import program
from inq_ray.core.channels import Per
from inq_ray.export.packed.reader import PackedTensor
from inq_ray.models.digits_cnn import DigitsCNN
from inq_ray.training.config import RunConfig
from inq_ray.training.evaluation.evaluate import evaluate_only
from inq_ray.training.task.build import open_data
from inq_ray.verification import verified
from tests.export.onnx.networks import DIGEST, codes_of, with_statistics
from tests.training.runs import needs_digits

DecodeError = pytest.importorskip("google.protobuf.message").DecodeError
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from inq_ray.export.onnx import metadata  # noqa: E402
from inq_ray.export.onnx.codes import LAYOUTS, Layout  # noqa: E402
from inq_ray.export.onnx.model import float_model, with_codes  # noqa: E402
from inq_ray.export.onnx.qonnx import export_qonnx  # noqa: E402
from inq_ray.export.onnx.reader import unpack  # noqa: E402

pytestmark = pytest.mark.system

_FACTS = {"network": {"arch": "digits_cnn"}, "note": "\x1b[31m"}


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, bias=False)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.norm(self.conv(images)).mean(dim=(2, 3)))


@functools.cache
def _float_model() -> bytes:
    data: bytes = float_model(with_statistics(_Small()), torch.zeros(2, 1, 8, 8)).SerializeToString()
    return data


def _model(bits: int, layout: Layout, per: Per = "tensor") -> tuple[Any, dict[str, PackedTensor]]:
    """A small model before it gets its metadata, and its codes."""
    torch.manual_seed(0)
    quantized = codes_of(_Small(), bits, "full", per)
    return with_codes(onnx.ModelProto.FromString(_float_model()), quantized, layout), quantized


def _sealed(model: Any, quantized: dict[str, PackedTensor], layout: str = "small") -> bytes:
    return metadata.sealed(model, quantized, layout, _FACTS, DIGEST)


def _refusal(data: bytes) -> str | None:
    """The line by which a file is refused, None if it is taken."""
    try:
        unpack(data)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("per", ["tensor", "channel"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_what_was_exported_is_right(bits: int, per: Per, layout: Layout) -> None:
    model, quantized = _model(bits, layout, per)
    found = unpack(_sealed(model, quantized, layout))
    assert list(found.quantized) == ["conv.weight"]
    assert torch.equal(found.quantized["conv.weight"].codes, quantized["conv.weight"].codes)
    assert found.quantized["conv.weight"].codebook == quantized["conv.weight"].codebook
    codebook, codes = quantized["conv.weight"].codebook, quantized["conv.weight"].codes
    assert torch.equal(found.state["conv.weight"], codebook.decode(codes))
    assert found.facts == _FACTS
    assert found.digest == DIGEST
    assert {"norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"} <= found.state.keys()


def test_qonnx_is_right_and_a_changed_weight_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    network = with_statistics(DigitsCNN())
    quantized = codes_of(network, 3, "paper", "channel")
    path = tmp_path / "net.onnx"
    export_qonnx(network, torch.zeros(2, 1, 8, 8), path, quantized=quantized, facts=_FACTS, digest=DIGEST)
    found = verified(path)
    assert all(torch.equal(found.state[name], network.get_parameter(name)) for name in quantized)
    assert {row.name for row in inq_ray.verify(path) if row.bits} == set(quantized)

    model = onnx.load_from_string(path.read_bytes())
    del model.metadata_props[:]
    weight = next(each for each in model.graph.initializer if each.name == "classifier.weight.float")
    weight.raw_data = b"\x01" + weight.raw_data[1:]
    path.write_bytes(_sealed(model, quantized, "qonnx"))
    assert program.run(["verify", str(path)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("WRONG ")
    assert "'classifier.weight': 1 of 2560 weights" in out
    assert "power of two" in out
    assert out.count("\n") == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_flipped_byte_is_found(layout: Layout) -> None:
    data = _sealed(*_model(3, layout), layout)
    taken = []
    for position in range(0, len(data), 1 if layout == "fast" else 5):
        changed = bytearray(data)
        changed[position] ^= 0x15
        if _refusal(bytes(changed)) is None:
            taken.append(position)
    assert not taken
    assert all(_refusal(data[:length]) for length in range(0, len(data), 50))


def _initializer(model: Any, name: str) -> Any:
    return next(each for each in model.graph.initializer if each.name == name)


def _codes(model: Any) -> None:
    tensor = _initializer(model, "conv.weight.codes")
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]


def _levels(model: Any) -> None:
    tensor = _initializer(model, "conv.weight.levels")
    tensor.raw_data = b"\x00\x00\x40\x3f" * (len(tensor.raw_data) // 4)  # 0.75


def _no_codes(model: Any) -> None:
    kept = [each for each in model.graph.initializer if each.name != "conv.weight.codes"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _another_node(model: Any) -> None:
    node = next(each for each in model.graph.node if "conv.weight" in each.output)
    node.op_type = "Sum"


def _another_weight(model: Any) -> None:
    for node in model.graph.node:
        if "conv.weight" in node.input:
            node.input[list(node.input).index("conv.weight")] = "norm.weight"


def _twice(model: Any) -> None:
    model.graph.initializer.append(_initializer(model, "norm.weight"))


def _external(model: Any) -> None:
    tensor = _initializer(model, "norm.weight")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def _function(model: Any) -> None:
    model.functions.add(name="f", domain="d")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_codes, "SHA-256 of its codes is not that"),
        (_levels, "weights are neither 0 nor a power of two"),
        (_no_codes, "the graph has no 'conv.weight.codes': another program has changed it"),
        (_another_node, "the graph computes 'conv.weight' in another way"),
        (_another_weight, "the graph does not use it"),
        (_twice, "two tensors or nodes have the same name"),
        (_external, "tensors in other files"),
        (_function, "has functions"),
    ],
)
def test_a_changed_graph_with_a_right_digest_is_found(change: Callable[[Any], None], reason: str) -> None:
    model, quantized = _model(5, "fast")
    change(model)
    assert reason in str(_refusal(_sealed(model, quantized, "fast")))


def test_other_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = _model(4, "small")
    (tmp_path / "plain.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "not.onnx").write_bytes(b"\xff" * 100)
    for name, reason in {
        "plain.onnx": "was not exported by inq_ray",
        "not.onnx": "is damaged, or not an ONNX file",
    }.items():
        assert program.run(["verify", str(tmp_path / name)]) == 1
        out = capsys.readouterr().out
        assert out.startswith("WRONG ")
        assert reason in out
        assert out.count("\n") == 1
        assert program.run(["inspect", str(tmp_path / name)]) == 2
    assert program.run(["evaluate", str(tmp_path / "plain.onnx"), "--data", "digits"]) == 2
    assert "inq-ray verify FILE --data DATA" in capsys.readouterr().err


@needs_digits
def test_the_accuracy_by_onnx_runtime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    network = DigitsCNN().eval()
    quantized = codes_of(network, 4)
    config, path = RunConfig(), tmp_path / "net.onnx"
    accuracy = evaluate_only(config, device=torch.device("cpu"), model=network)
    claim = {"top1": accuracy.top1, "num_images": 500, "data_fingerprint": open_data(config).info.fingerprint}
    model = with_codes(float_model(network, torch.zeros(2, 1, 8, 8)), quantized, "small")
    for top1, status, line in (
        (accuracy.top1, 0, f"right     accuracy  {accuracy.num_top1} of 500 images"),
        (accuracy.top1 + 1, 1, f"WRONG     accuracy: {accuracy.num_top1} of 500 images, the claim is"),
    ):
        copy = onnx.ModelProto.FromString(model.SerializeToString())
        path.write_bytes(metadata.sealed(copy, quantized, "small", {"accuracy": {**claim, "top1": top1}}, DIGEST))
        assert program.run(["verify", str(path), "--data", "digits"]) == status
        assert capsys.readouterr().out.splitlines()[-1].startswith(line)
    assert program.run(["verify", str(path), "--data", str(tmp_path / "none")]) == 2


def test_what_is_not_installed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    model, quantized = _model(4, "small")
    path.write_bytes(metadata.sealed(model, quantized, "small", {"accuracy": {"top1": 9.0, "num_images": 5}}, DIGEST))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "inq_ray.export.onnx.session", raising=False)
    assert program.run(["verify", str(path), "--data", "digits"]) == 2
    assert "--data runs an ONNX file by onnxruntime, which is not installed: pip install" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "inq_ray.export.onnx.reader", None)
    assert program.run(["verify", str(path)]) == 2
    assert "pip install" in capsys.readouterr().err


def _odd() -> st.SearchStrategy[Any]:
    known = [
        *LAYOUTS,
        "qonnx",
        "paper",
        "full",
        "conv.weight",
        [3, 1, 3, 3],
        [2**40, 0],
        [2**47, 2**47, 2**47, 0],
        [],
        {},
    ]
    return st.one_of(
        st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(), st.text(max_size=5), st.sampled_from(known),
        st.lists(st.integers(-2, 2**50), max_size=70),
    )  # fmt: skip


def _mutated(draw: st.DrawFn, value: Any) -> Any:
    """A value in the metadata becomes another."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys or draw(st.integers(0, 4)) == 0:
        return draw(_odd())
    key = draw(st.sampled_from(keys))
    value[key] = _mutated(draw, value[key]) if isinstance(value[key], dict | list) and value[key] else draw(_odd())
    return value


@settings(max_examples=300, deadline=None)
@given(data=st.data(), layout=st.sampled_from([*LAYOUTS]), bits=st.sampled_from([2, 3, 4]))
def test_wrong_metadata_with_a_right_digest(data: st.DataObject, layout: Layout, bits: int) -> None:
    model, quantized = _model(bits, layout)
    good = onnx.ModelProto.FromString(_sealed(model, quantized, layout))
    described = data.draw(st.composite(_mutated)(json.loads(good.metadata_props[0].value)))
    del good.metadata_props[:]
    changed = metadata.with_metadata(good, described)
    if _refusal(changed) is None:
        found = unpack(changed)
        for name, packed in found.quantized.items():
            assert torch.equal(packed.codebook.decode(packed.codes), found.state[name])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_wrong_bytes_with_a_right_digest(data: st.DataObject) -> None:
    model, quantized = _model(3, "small")
    raw = bytearray(model.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        changed = onnx.ModelProto.FromString(bytes(raw))
    except DecodeError:
        return
    sealed = _sealed(changed, quantized)
    if _refusal(sealed) is None:  # what changed is not of a weight
        assert torch.equal(unpack(sealed).quantized["conv.weight"].codes, quantized["conv.weight"].codes)
