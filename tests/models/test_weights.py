"""Weights from files: what loads, what is refused and how, and that no file can run code."""

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inq_ray.models import create, load_weights


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return create("digits_cnn", num_classes=10, in_channels=1)


@pytest.fixture
def state() -> dict[str, Tensor]:
    return network(1).state_dict()


def assert_loads(path: Path, state: dict[str, Tensor]) -> None:
    model = network()
    load_weights(model, path)
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def refusal(path: Path) -> str:
    """Return the one line with which a file is refused; the model stays as it was."""
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        load_weights(model, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_safetensors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "a.safetensors")
    assert_loads(tmp_path / "a.safetensors", state)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".th", ".pth.tar"])
@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        OrderedDict,
        lambda state: {"state_dict": state, "epoch": 3, "arch": "digits_cnn"},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
    ],
    ids=["dict", "ordered", "wrapped", "ddp", "compiled"],
)
def test_state_dicts(tmp_path: Path, state: dict[str, Tensor], suffix: str, wrap: Any) -> None:
    path = tmp_path / f"a{suffix}"
    torch.save(wrap(state), path)
    assert_loads(path, state)


def test_into_a_wrapped_model(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "a.safetensors")
    model = network()
    load_weights(nn.DataParallel(model), tmp_path / "a.safetensors")
    assert torch.equal(model.state_dict()["classifier.weight"], state["classifier.weight"])


def test_counters_of_batches_may_be_missing(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file({n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}, tmp_path / "a.safetensors")
    assert_loads(tmp_path / "a.safetensors", state)


def test_half_precision_is_converted(tmp_path: Path, state: dict[str, Tensor]) -> None:
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_file(half, tmp_path / "a.safetensors")
    assert_loads(tmp_path / "a.safetensors", {name: tensor.to(state[name].dtype) for name, tensor in half.items()})


def test_what_does_not_fit_is_told_in_one_line(tmp_path: Path, state: dict[str, Tensor]) -> None:
    del state["features.0.weight"]
    state["classifier.weight"] = torch.zeros(11, 256)
    state["classifier.bias"] = torch.zeros(10, dtype=torch.uint8)
    for number in range(5):
        state[f"extra{number}"] = torch.zeros(1)
    save_file(state, tmp_path / "a.safetensors")
    message = refusal(tmp_path / "a.safetensors")
    assert "does not fit DigitsCNN: 1 missing (features.0.weight)" in message
    assert "5 unexpected (extra0, extra1, extra2, ...)" in message
    assert "1 of another shape (classifier.weight [11, 256] for [10, 256])" in message
    assert "1 of another type (classifier.bias torch.uint8 for torch.float32)" in message


def test_missing_file_folder_and_unknown_suffix(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "a.pth")
    assert "not a file" in refusal(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"x")
    assert "allowed are .safetensors, .pth" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("size", [0, 7, 1000])
def test_truncated_files(tmp_path: Path, state: dict[str, Tensor], name: str, size: int) -> None:
    path = tmp_path / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:size])
    assert "cannot read" in refusal(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"epoch": 3, "best": 91.7}, "holds no tensors by name, only: epoch, best"),
        ({}, "holds no tensors by name, only: nothing"),
        ([torch.zeros(3)], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
    ],
)
def test_files_without_a_state_dict(tmp_path: Path, content: object, told: str) -> None:
    torch.save(content, tmp_path / "a.pth")
    assert told in refusal(tmp_path / "a.pth")


class Touch:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_file_is_not_run(tmp_path: Path, state: dict[str, Tensor], legacy: bool) -> None:
    torch.save(
        {**state, "extra": Touch(tmp_path / "ran")}, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy
    )
    assert "would run code when loaded" in refusal(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "a.pt")
    assert "save model.state_dict()" in refusal(tmp_path / "a.pt")


def test_the_trained_resnet20_loads(shared_data: Path) -> None:
    model = create("cifar_resnet20", num_classes=10)
    load_weights(model, shared_data / "models" / "cifar10_resnet20.safetensors")
    assert model.linear.weight.abs().max() > 0.5
    assert all(int(buffer) == 0 for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked"))
