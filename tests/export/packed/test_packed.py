"""Packed files: what is written is read back, small, by anybody; what is broken is refused in a line."""

import hashlib
import json
import math
import re
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import inq_ray
from inq_ray import safetensors_file
from inq_ray.core.channels import PERS, Per
from inq_ray.core.codebook import LEVELS, Codebook, Levels
from inq_ray.core.stage import apply, decide
from inq_ray.core.state import TensorState
from inq_ray.export.packed.coding import codes_per_byte, compress_codes, decompress_codes
from inq_ray.export.packed.reader import read
from inq_ray.export.packed.writer import load, save, verify
from inq_ray.export.packed.writer import write as write_packed
from inq_ray.export.result import Result
from tests.export.results import quantized, same_bits

_DOCUMENT = Path(__file__).parents[3] / "docs" / "format.md"


class _Scheduler:
    def __init__(self, state: dict[str, TensorState]) -> None:
        self.state = state


def _written(
    path: Path, num_bits: int = 5, levels: Levels = "paper", per: Per = "tensor", **facts: Any
) -> nn.Sequential:
    network, states = quantized(num_bits, levels=levels, per=per)
    save(path, network, _Scheduler(states), **facts)
    return network


def _refusal(path: Path) -> str | None:
    """The line by which a file is refused, None if it is taken."""
    try:
        read(path)
    except ValueError as error:
        message = str(error)
    else:
        return None
    assert len(message) <= 300, message
    assert message.isprintable(), message
    return message


def _same_states(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(same_bits(one[name], other[name]) for name in one)


@pytest.mark.parametrize("per", PERS)
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("num_bits", range(2, 9))
def test_what_is_written_is_read_back(num_bits: int, levels: Levels, per: Per, tmp_path: Path) -> None:
    path = tmp_path / "net.inq.safetensors"
    network = _written(path, num_bits, levels, per, network={"arch": "mine"}, top1=98.6)
    assert _same_states(load(path), dict(network.state_dict()))
    found = read(path)
    assert found.facts == {"network": {"arch": "mine"}, "top1": 98.6}
    assert list(found.quantized) == ["0.weight", "3.weight", "4.weight"]

    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 10), nn.Linear(10, 4))
    load(path, nn.DataParallel(other))
    assert _same_states(dict(other.state_dict()), dict(network.state_dict()))


@given(
    num_bits=st.integers(2, 8),
    codes=st.lists(st.integers(0, 255), max_size=300),
    repeats=st.sampled_from([1, 1, 50]),
)
def test_codes_come_back(num_bits: int, codes: list[int], repeats: int) -> None:
    tensor = torch.tensor([code % 2**num_bits for code in codes] * repeats, dtype=torch.uint8)
    encoding, stored = compress_codes(tensor, num_bits)
    assert len(stored) <= math.ceil(tensor.numel() / codes_per_byte(num_bits))
    assert torch.equal(decompress_codes(stored, encoding, num_bits, tensor.numel()), tensor)
    for count in (tensor.numel() + codes_per_byte(num_bits), tensor.numel() - codes_per_byte(num_bits)):
        if count >= 0:
            with pytest.raises(ValueError, match=r"bytes|DEFLATE"):
                decompress_codes(stored, encoding, num_bits, count)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    stored = bomb.compress(bytes(10**7)) + bomb.flush()
    with pytest.raises(ValueError, match="not one DEFLATE stream of 1000 bytes"):
        decompress_codes(stored, "deflate", 8, 1000)
    with pytest.raises(ValueError, match="bytes cannot contain"):
        decompress_codes(stored[:100], "deflate", 8, 2**40)


@pytest.mark.parametrize("num_bits", [2, 3, 4, 5])
def test_the_size_is_near_the_entropy(num_bits: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.Conv2d(64, 128, 3), nn.Linear(128, 100))
    states, limit = {}, 4000.0
    for name, weight in network.named_parameters():
        if weight.dim() > 1:
            states[name] = TensorState.live(weight, num_bits)
            update = decide(weight, states[name], 1.0, name=name, strategy="pruning", seed=0, stage=0, rule="mse")
            apply(weight, states[name], update)
            counts = np.bincount(states[name].codes.numpy().reshape(-1))
            shares = counts[counts > 0] / counts.sum()
            limit += 1.03 * float(-(shares * np.log2(shares)).sum()) * weight.numel() / 8
    float_bytes = sum(
        tensor.numel() * tensor.element_size() for name, tensor in network.state_dict().items() if name not in states
    )
    save(tmp_path / "net", network, _Scheduler(states))
    assert (tmp_path / "net").stat().st_size <= limit + float_bytes


def test_tied_tensors_are_written_once_and_are_one_tensor_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = nn.Linear(64, 64, bias=False)
    network = nn.ModuleDict({"a": first, "b": nn.Linear(64, 64, bias=False)})
    network["b"].weight = first.weight
    state = TensorState.live(first.weight, 8)
    apply(first.weight, state, decide(first.weight, state, 1.0, name="w", strategy="pruning", seed=0, stage=0))
    save(tmp_path / "net", network, _Scheduler({"b.weight": state}))
    assert (tmp_path / "net").stat().st_size < 64 * 64 + 2000
    found = load(tmp_path / "net")
    assert found["a.weight"] is found["b.weight"]
    assert same_bits(found["a.weight"], first.weight)


def test_tensors_of_every_dtype_and_shape(tmp_path: Path) -> None:
    state = {
        f"{str(dtype).removeprefix('torch.')}-{index}": torch.arange(max(1, math.prod(shape)))
        .to(dtype)[: math.prod(shape)]
        .reshape(shape)
        for dtype in safetensors_file.DTYPES
        for index, shape in enumerate([(), (0,), (2, 3), (3, 0, 2)])
    }
    write_packed(tmp_path / "net", Result(state, {}))
    assert _same_states(read(tmp_path / "net").state, state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_other_dtypes(dtype: torch.dtype, tmp_path: Path) -> None:
    network, states = quantized(4, dtype)
    save(tmp_path / "net", network, _Scheduler(states))
    assert _same_states(load(tmp_path / "net"), dict(network.state_dict()))


def test_a_network_that_cannot_hold_the_levels_is_refused(tmp_path: Path) -> None:
    network = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.full((4, 4), 2.0**-40))
    state = TensorState.live(network.weight, 5)
    apply(network.weight, state, decide(network.weight, state, 1.0, name="w", strategy="pruning", seed=0, stage=0))
    save(tmp_path / "net", network, _Scheduler({"weight": state}))
    with pytest.raises(ValueError, match=r"'weight' of the network has torch\.float16"):
        load(tmp_path / "net", nn.Linear(4, 4, bias=False).half())
    narrow = nn.Linear(4, 4, bias=False).bfloat16()
    load(tmp_path / "net", narrow)
    assert torch.equal(narrow.weight.float(), network.weight)
    with pytest.raises(ValueError, match=r"does not fit Linear: other shapes: 'weight' \[4, 4\] for \[5, 4\]$"):
        load(tmp_path / "net", nn.Linear(4, 5, bias=False))
    with pytest.raises(ValueError, match=r"does not fit Sequential: missing: '0.weight', '0.bias' and 6 more; unexpec"):
        load(tmp_path / "net", nn.Sequential(*(nn.Linear(4, 4) for _ in range(4))))


def test_what_cannot_be_written_leaves_the_file_of_before(tmp_path: Path) -> None:
    path = tmp_path / "net"
    network = _written(path)
    before = path.read_bytes()
    _, states = quantized()
    with pytest.raises(ValueError, match="not JSON values"):
        save(path, network, _Scheduler(states), odd=object())
    states["0.weight"].frozen[0] = False
    with pytest.raises(ValueError, match="still live"):
        save(path, network, _Scheduler(states))
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["net"]


def test_a_full_disk_leaves_the_file_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net"
    network = _written(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors_file, "save_file", full)
    with pytest.raises(ValueError, match=r"^cannot write .*: I/O error: No space left"):
        save(path, network, _Scheduler(quantized()[1]))
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["net"]


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _written(tmp_path / name, b=1, a=2)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_verification_compares_every_tensor(tmp_path: Path) -> None:
    network = _written(tmp_path / "net")
    state, names = dict(network.state_dict()), ["0.weight", "3.weight", "4.weight"]
    verify(tmp_path / "net", state, names)
    for name, tensor in state.items():
        changed = tensor.clone(memory_format=torch.contiguous_format)
        changed.reshape(-1)[0] += 1
        with pytest.raises(RuntimeError, match=rf"{name}.*differs"):
            verify(tmp_path / "net", {**state, name: changed}, names)
    with pytest.raises(RuntimeError, match=r"4\.weight.*is packed"):
        verify(tmp_path / "net", state, names[:2])
    with pytest.raises(RuntimeError, match=r"5\.weight.*is not packed"):
        verify(tmp_path / "net", state, [*names, "5.weight"])


def test_any_flipped_byte_is_found(tmp_path: Path) -> None:
    network, states = quantized(3)
    state = {name: states[name] for name in ("0.weight", "4.weight")}
    save(tmp_path / "net", network, _Scheduler(state), note="x")
    data = (tmp_path / "net").read_bytes()
    taken = []
    for position in range(0, len(data), 1 if len(data) < 4000 else 5):
        changed = bytearray(data)
        changed[position] ^= 0x15
        (tmp_path / "changed").write_bytes(changed)
        if _refusal(tmp_path / "changed") is None:
            taken.append((position, data[position], changed[position]))
    assert not taken


@pytest.mark.parametrize("shape", [[2**47, 2**47, 2**47, 0], [0, *[2**47] * 5], [2**62, 0], [10**400, 0]])
@pytest.mark.parametrize("line", [0, 3])
def test_a_shape_beyond_torchs_numbers_is_refused(shape: list[int], line: int, tmp_path: Path) -> None:
    _written(tmp_path / "net", 3)
    tensors, metadata = safetensors_file.read(tmp_path / "net")
    index = json.loads(zlib.decompress(tensors["index"].numpy().tobytes()))
    index["tensors"][line]["shape"] = shape
    _with_index(tmp_path / "changed", tensors, metadata, index)
    assert "has the shape [" in str(_refusal(tmp_path / "changed"))


def _with_index(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], index: Any) -> None:
    """Write a right container with this index."""
    stored = zlib.compress(json.dumps(index).encode())
    described = json.loads(metadata["inq"]) | {"index_sha256": hashlib.sha256(stored).hexdigest()}
    tensors = {**tensors, "index": torch.frombuffer(bytearray(stored), dtype=torch.uint8)}
    save_file(tensors, path, {"inq": json.dumps(described)})


def _mutated(draw: st.DrawFn, index: Any) -> Any:
    """A value in the index becomes another; the container and its digests stay valid, so that what is inside counts."""
    odd = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 2**70),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(["plain", "deflate", "paper", "full", "float32", "int64", "0.weight", [2**40, 2**40], [], {}]),
        st.lists(st.integers(-2, 2**50), max_size=70),
    )
    keys = list(index) if isinstance(index, dict) else list(range(len(index)))
    if not keys or (draw(st.integers(0, 4)) == 0):
        return draw(odd)
    key = draw(st.sampled_from(keys))
    if isinstance(index[key], dict | list) and index[key]:
        index[key] = _mutated(draw, index[key])
    elif isinstance(index, dict) and draw(st.integers(0, 5)) == 0:
        del index[key]
    else:
        index[key] = draw(odd)
    return index


def _check_mutated(data: st.DataObject, folder: Path) -> bool:
    """Write a file with a wrong index in a right container; return whether it was taken."""
    path = folder / "net"
    if not path.exists():
        _written(path, 3, note="x")
    tensors, metadata = safetensors_file.read(path)
    index = json.loads(zlib.decompress(tensors["index"].numpy().tobytes()))
    _with_index(folder / "changed", tensors, metadata, data.draw(st.composite(_mutated)(index)))
    if _refusal(folder / "changed") is not None:
        return False
    found = read(folder / "changed")
    for name, packed in found.quantized.items():
        assert torch.equal(packed.codebook.decode(packed.codes), found.state[name].float())
    return True


@settings(max_examples=300)
@given(data=st.data())
def test_a_wrong_index_in_a_right_container(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    _check_mutated(data, tmp_path_factory.getbasetemp())


@pytest.mark.long
@settings(max_examples=10_000)
@given(data=st.data())
def test_many_wrong_indexes(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    _check_mutated(data, tmp_path_factory.getbasetemp())


def test_other_files_are_named(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(3)}, tmp_path / "plain")
    with pytest.raises(ValueError, match="not a packed file of inq_ray"):
        load(tmp_path / "plain")
    with pytest.raises(ValueError, match="no such file"):
        load(tmp_path / "none")
    _written(tmp_path / "net")
    tensors, _ = safetensors_file.read(tmp_path / "net")
    save_file(tensors, tmp_path / "new", {"inq": json.dumps({"format_version": 2})})
    with pytest.raises(ValueError, match="format_version is 2, but this program reads 1: update inq_ray"):
        load(tmp_path / "new")


def _code_of_document() -> tuple[str, str]:
    reader, example = re.findall(r"```python\n(.*?)```", _DOCUMENT.read_text(), flags=re.DOTALL)[1:]
    return reader, example


@pytest.mark.parametrize("per", PERS)
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("num_bits", [2, 3, 4, 5, 8])
def test_the_reader_of_the_document(num_bits: int, levels: Levels, per: Per, tmp_path: Path) -> None:
    network = _written(tmp_path / "net", num_bits, levels, per)
    scope: dict[str, Any] = {}
    exec(_code_of_document()[0], scope)
    found = scope["read"](tmp_path / "net")
    for name, tensor in network.state_dict().items():
        assert np.array_equal(found[name], tensor.numpy()), name
    assert found.keys() == network.state_dict().keys()


def test_the_example_of_the_document() -> None:
    scope: dict[str, Any] = {}
    exec(_code_of_document()[1], scope)
    weights = torch.tensor(scope["weights"])
    codebook = Codebook(num_bits=3, n_1=-1)
    assert codebook.encode(weights).tolist() == scope["codes"]
    assert torch.equal(codebook.decode(torch.tensor(scope["codes"], dtype=torch.uint8)), weights)
    assert compress_codes(codebook.encode(weights), 3) == ("plain", bytes(scope["stored"]))


@pytest.mark.system
def test_reading_and_writing_need_no_ray_and_no_training(tmp_path: Path) -> None:
    """In a process in which nothing can be imported but torch, numpy, safetensors and the standard library."""
    network = _written(tmp_path / "net")
    torch.save(network.state_dict(), tmp_path / "expected.pt")
    program = textwrap.dedent(
        """
        import sys
        from importlib.abc import MetaPathFinder

        class Wall(MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                top, _, rest = name.partition(".")
                allowed = ("", "core", "export", "files", "safetensors_file")
                others = ("ray", "torchvision", "pyarrow", "rich", "tyro", "tenacity", "yaml", "PIL", "xxhash")
                if top in others or (top == "inq_ray" and rest.split(".")[0] not in allowed):
                    raise ImportError(f"{name} is not for recipients")

        sys.meta_path.insert(0, Wall())
        import torch, inq_ray
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(128, 10),
            torch.nn.Linear(10, 4),
        )
        inq_ray.load(sys.argv[1], net)
        expected = torch.load(sys.argv[2], weights_only=True)
        assert all(torch.equal(net.state_dict()[name], expected[name]) for name in expected)
        print("same")
        """
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "net"), str(tmp_path / "expected.pt")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "same\n", done.stderr


def test_the_public_names(tmp_path: Path) -> None:
    assert (inq_ray.save, inq_ray.load) == (save, load)
    _written(tmp_path / "net")
    with safe_open(tmp_path / "net", framework="np") as opened:
        assert sorted(opened.keys()) == ["codes", "float32", "index", "int64"]


def test_a_layer_that_is_compiled_changes_no_names(tmp_path: Path) -> None:
    path = tmp_path / "a.inq.safetensors"
    network, states = quantized(4)
    plain = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network[0] = torch.compile(network[0])
    save(path, network, _Scheduler(states))
    assert load(path).keys() == plain.keys()
    for tensor in network.state_dict().values():
        tensor.zero_()
    load(path, network)
    assert all(map(torch.equal, network.state_dict().values(), plain.values()))


def test_what_is_no_scheduler_is_named(tmp_path: Path) -> None:
    network, states = quantized(4)
    save(tmp_path / "a.inq.safetensors", network, states)
    with pytest.raises(ValueError, match=r"expected an INQScheduler or its scheduler\.state, got dict"):
        save(tmp_path / "b.inq.safetensors", network, {"stage": 1})  # type: ignore[arg-type]
