"""Weights from files: what loads, what is refused and how, and that no file can run code."""

import argparse
import datetime as dt
import enum
import gzip
import pickle
import random
import re
import sys
import tarfile
import types
import unicodedata
import uuid
import zipfile
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inq_ray.models import recognition
from inq_ray.models.registry import create
from inq_ray.models.shapes import head_parameters, without_data
from inq_ray.models.weights.files import is_weights_file
from inq_ray.models.weights.load import load_weights
from inq_ray.models.weights.pretrained import resolve_weights
from tests.models.touch import Touch


@pytest.fixture(autouse=True)
def only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file looks like is searched for among our networks only: torchvision's take seconds."""
    monkeypatch.setattr(recognition, "_candidates", lambda _: iter(recognition.OURS))


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
        lambda state: {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
        lambda state: {name.replace("features.", "features._orig_mod."): tensor for name, tensor in state.items()},
        lambda state: {
            f"module.{name.replace('features.0.', 'features.0._orig_mod.')}": tensor for name, tensor in state.items()
        },
        # torch's ImageNet example wraps `features` of AlexNet and VGG alone
        lambda state: {name.replace("features.", "features.module."): tensor for name, tensor in state.items()},
    ],
    ids=["dict", "ordered", "wrapped", "ddp", "compiled in ddp", "ddp in compiled", "part", "part in ddp", "dp part"],
)
def test_state_dicts(tmp_path: Path, state: dict[str, Tensor], suffix: str, wrap: Any) -> None:
    path = tmp_path / f"a{suffix}"
    torch.save(wrap(state), path)
    assert_loads(path, state)


def wrong(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("part", "checkpoint"),
    [
        (
            "model_ema",  # torchvision's reference: AveragedModel's state dict beside the model's, and its arguments
            lambda state: {
                "model": wrong(state),
                "model_ema": {"n_averaged": torch.tensor(7), **{f"module.{name}": t for name, t in state.items()}},
                "args": argparse.Namespace(lr=0.1, norm_weight_decay=None),
                "epoch": 3,
            },
        ),
        ("state_dict_ema", lambda state: {"state_dict": wrong(state), "state_dict_ema": state, "metric": 80.0}),
        ("model", lambda state: {"model": state, "model_ema": None}),
        ("", lambda state: {"n_averaged": torch.tensor(7), **{f"module.{name}": t for name, t in state.items()}}),
    ],
    ids=["torchvision", "timm", "no average", "AveragedModel"],
)
def test_an_average_of_weights_goes_before(
    tmp_path: Path, state: dict[str, Tensor], part: str, checkpoint: Any
) -> None:
    torch.save(checkpoint(state), tmp_path / "a.pth")
    assert_loads(tmp_path / "a.pth", state)
    assert load_weights(network(), tmp_path / "a.pth")[:2] == (part, ())


def test_a_file_of_torchs_own_averaged_and_compiled_model(tmp_path: Path, state: dict[str, Tensor]) -> None:
    model = network(1)
    averaged = torch.optim.swa_utils.AveragedModel(torch.compile(model), use_buffers=True)  # type: ignore[arg-type]
    torch.save(averaged.state_dict(), tmp_path / "a.pth")
    assert_loads(tmp_path / "a.pth", state)


def test_a_file_of_two_networks_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state | {f"_orig_mod.{name}": tensor + 0 for name, tensor in state.items()}, tmp_path / "a.safetensors")
    assert "holds two networks" in refusal(tmp_path / "a.safetensors")


def test_a_model_with_a_part_named_module_keeps_it(tmp_path: Path) -> None:
    model = nn.ModuleDict({"module": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    torch.save({f"module.{name}": tensor for name, tensor in model.state_dict().items()}, tmp_path / "a.pth")
    other = nn.ModuleDict({"module": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    load_weights(other, tmp_path / "a.pth")
    assert torch.equal(other["module"].weight, model["module"].weight)


def test_into_a_model_of_which_a_part_is_compiled(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "a.safetensors")
    model = network()
    model.features[0] = torch.compile(model.features[0])
    load_weights(model, tmp_path / "a.safetensors")
    assert torch.equal(model.features[0].weight, state["features.0.weight"])


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


def test_what_does_not_fit_is_told_in_one_line(
    tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a long path takes room from the rest
    path = Path("a.safetensors")
    del state["features.0.weight"]
    state["classifier.weight"] = torch.zeros(11, 256)
    state["classifier.bias"] = torch.zeros(10, dtype=torch.uint8)
    for number in range(5):
        state[f"extra{number}"] = torch.zeros(1)
    save_file(state, path)
    message = refusal(path)
    assert "does not fit DigitsCNN: 1 missing (features.0.weight); 5 unexpected (extra0, ...); 1 of another" in message
    assert len(message) <= 300
    save_file({name: tensor for name, tensor in state.items() if "class" not in name}, path)
    message = refusal(path)
    assert "3 missing (features.0.weight, classifier.weight, classifier.bias)" in message
    assert "5 unexpected (extra0, extra1, extra2, ...)" in message
    state = network().state_dict()
    state["classifier.weight"] = torch.zeros(11, 256)
    state["classifier.bias"] = torch.zeros(10, dtype=torch.uint8)
    save_file(state, path)
    message = refusal(path)
    assert "1 of another shape (classifier.weight [11, 256] for [10, 256])" in message
    assert "1 of another type (classifier.bias torch.uint8 for torch.float32)" in message


def test_missing_file_folder_and_unknown_suffix(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "a.pth")
    assert "not a file" in refusal(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"x")
    assert "ends in '.npz'; allowed are .safetensors, .pth" in refusal(tmp_path / "a.npz")
    zipped(tmp_path / "a.zip", {})
    assert "ends in '.zip', it is a ZIP archive: unpack it" in refusal(tmp_path / "a.zip")


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
        ({"epoch": 3, "best": 91.7}, "has no tensors by name, only: epoch, best"),
        ({}, "has no tensors by name, only: nothing"),
        ({"weight": np.zeros(3)}, "only: weight; save model.state_dict(), with tensors instead of NumPy arrays"),
        ([torch.zeros(3)], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
    ],
)
def test_files_without_a_state_dict(tmp_path: Path, content: object, told: str) -> None:
    torch.save(content, tmp_path / "a.pth")
    assert told in refusal(tmp_path / "a.pth")


def test_a_safetensors_file_without_tensors(tmp_path: Path) -> None:
    save_file({}, tmp_path / "a.safetensors")
    assert "holds no tensors; save model.state_dict()" in refusal(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.zeros(2, 2, device="meta"), "meta"),
        (lambda: torch.zeros(2, 2).to_sparse(), "torch.sparse_coo"),
        (lambda: torch.quantize_per_tensor(torch.zeros(2, 2), 1.0, 0, torch.qint8), "quantized"),
    ],
    ids=["meta", "sparse", "quantized"],
)
@pytest.mark.filterwarnings("ignore")  # torch's quantized tensors are deprecated, and files of them are about
def test_tensors_without_plain_numbers_are_refused(tmp_path: Path, make: Callable[[], Tensor], kind: str) -> None:
    torch.save({"weight": make()}, tmp_path / "a.pth")
    assert f"holds weight as a tensor of kind {kind}: save dense tensors" in refusal(tmp_path / "a.pth")


def test_a_home_that_is_not_there(tmp_path: Path) -> None:
    assert "~nobody_of_this_name/a.pth: there is no such home folder" in refusal(Path("~nobody_of_this_name/a.pth"))


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_file_is_not_run(tmp_path: Path, state: dict[str, Tensor], legacy: bool) -> None:
    torch.save(
        {**state, "extra": Touch(tmp_path / "ran")}, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy
    )
    assert "would run code when loaded" in refusal(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "a.pt")
    message = refusal(tmp_path / "a.pt")
    assert "it contains inq_ray.models.digits_cnn.DigitsCNN and would run code when loaded" in message
    assert "torch.save(model.state_dict(), 'w.pth')" in message
    assert "weights_only" not in message


def test_the_trained_resnet20_loads(shared_data: Path) -> None:
    model = create("cifar_resnet20", num_classes=10)
    load_weights(model, shared_data / "models" / "cifar10_resnet20.safetensors")
    assert model.linear.weight.abs().max() > 0.5
    assert all(int(buffer) == 0 for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked"))


HEAD = frozenset({"classifier.weight", "classifier.bias"})


def test_a_head_for_other_classes_is_replaced_when_asked(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "a.safetensors")
    model = create("digits_cnn", num_classes=7, in_channels=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert head_parameters("digits_cnn", 1) == HEAD
    loaded = load_weights(model, tmp_path / "a.safetensors", replace_head=HEAD)
    assert loaded[:2] == ("", ("classifier.weight", "classifier.bias"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name] if name in HEAD else state[name])


@pytest.mark.parametrize("change", ["missing", "one of two"])
def test_a_head_is_replaced_as_a_whole(tmp_path: Path, state: dict[str, Tensor], change: str) -> None:
    del state["classifier.bias"]
    if change == "missing":
        del state["classifier.weight"]
    save_file(state, tmp_path / "a.safetensors")
    model = network()
    before = model.classifier.weight.clone()
    assert load_weights(model, tmp_path / "a.safetensors", replace_head=HEAD).fresh
    assert torch.equal(model.classifier.weight, before)


def test_a_network_that_is_only_a_head(tmp_path: Path) -> None:
    save_file(nn.Linear(4, 5).state_dict(), tmp_path / "a.safetensors")
    model = nn.Linear(4, 3)
    before = model.weight.clone()
    assert load_weights(model, tmp_path / "a.safetensors", replace_head=["weight", "bias"]).fresh == ("weight", "bias")
    assert torch.equal(model.weight, before)


def test_a_head_that_fits_is_loaded_though_it_may_be_replaced(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "a.safetensors")
    model = network()
    assert load_weights(model, tmp_path / "a.safetensors", replace_head=HEAD)[:2] == ("", ())
    assert torch.equal(model.classifier.weight, state["classifier.weight"])


def test_all_but_the_head_must_fit(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["classifier.bias"] = torch.zeros(3)
    state["features.0.weight"] = torch.zeros(16, 3, 3, 3)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"DigitsCNN: 1 of another shape \(features.0.weight"):
        load_weights(network(), tmp_path / "a.safetensors", replace_head=HEAD)


def test_without_being_asked_the_message_says_how(tmp_path: Path) -> None:
    save_file(create("digits_cnn", num_classes=7, in_channels=1).state_dict(), tmp_path / "a.safetensors")
    message = refusal(tmp_path / "a.safetensors")
    assert message.endswith("; the file has 7 classes and the network 10: --replace-head loads all but the head")


def test_other_shapes_are_not_taken_for_other_classes(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state | {"features.0.weight": torch.zeros(16, 3, 3, 3)}, tmp_path / "a.safetensors")
    assert "--replace-head" not in refusal(tmp_path / "a.safetensors")
    save_file(state | {"features.1.bias": torch.zeros(())}, tmp_path / "a.safetensors")
    assert "--replace-head" not in refusal(tmp_path / "a.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_before_anything_starts(
    tmp_path: Path, state: dict[str, Tensor], value: float
) -> None:
    broken = state["features.0.weight"].clone()
    broken.view(-1)[3] = value
    save_file(state | {"features.0.weight": broken}, tmp_path / "a.safetensors")
    told = "1 with values that are NaN, infinite, or too large for the network's type (features.0.weight)"
    assert told in refusal(tmp_path / "a.safetensors")


def test_numbers_beyond_the_networks_type_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """They would be infinite in it."""
    large = state["features.0.weight"].double() * 1e60
    save_file(state | {"features.0.weight": large}, tmp_path / "a.safetensors")
    assert "too large for the network's type (features.0.weight)" in refusal(tmp_path / "a.safetensors")


def test_a_file_of_a_whole_module_is_refused_without_colors(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth")
    assert "would run code" in message
    assert message.isprintable()


def test_a_file_of_another_network_is_recognized(tmp_path: Path) -> None:
    save_file(create("cifar_resnet32", num_classes=10).state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"unexpected .*; the file looks like --arch cifar_resnet32$"):
        load_weights(create("cifar_resnet20", num_classes=10), tmp_path / "a.safetensors")


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_torchvisions_files_with_auxiliary_classifiers_load(tmp_path: Path, arch: str) -> None:
    """A bug once: what torchvision publishes for these two was refused."""
    import torchvision.models

    with without_data():
        published = torchvision.models.get_model(arch, weights=None, aux_logits=True, init_weights=False)
    for tensor in published.to_empty(device="cpu").state_dict().values():
        tensor.zero_()
    published.fc.weight.data.fill_(3)
    torch.save(published.state_dict(), tmp_path / "a.pth")
    with without_data():
        model = create(arch, num_classes=1000)
    model.to_empty(device="cpu")
    assert model.transform_input, "as torchvision has it with its trained weights"
    load_weights(model, tmp_path / "a.pth")
    assert torch.equal(model.fc.weight, published.fc.weight)


# How checkpoints have their tensors.


@pytest.mark.parametrize(
    ("place", "checkpoint"),
    [
        ("net", lambda state: {"net": state, "acc": 91.0, "epoch": 3}),
        ("ema", lambda state: {"net": wrong(state), "ema": state}),
        ("ema.shadow", lambda state: {"model": wrong(state), "ema": {"decay": 0.9, "shadow": state}}),
        ("params", lambda state: {"params": state, "optimizer": {"state": {0: {"momentum": torch.ones(3)}}}}),
        ("state_dict.model", lambda state: {"state_dict": {"model": state, "epoch": torch.tensor(3)}}),
        ("state_dict.model", lambda state: {"state_dict": {f"model.{name}": t for name, t in state.items()}}),
        ("backbone", lambda state: {f"backbone.{name}": t for name, t in state.items()}),
        ("a.b", lambda state: {f"module.a.b.{name}": t for name, t in state.items()}),
        (
            "state_dict.encoder_q",  # MoCo: the encoder that learns, the one that follows, and a queue
            lambda state: {
                "state_dict": {
                    **{f"module.encoder_k.{name}": t for name, t in wrong(state).items()},
                    **{f"module.encoder_q.{name}": t for name, t in state.items()},
                    "module.queue": torch.ones(3, 5),
                }
            },
        ),
        (
            "state_dict.ema_model",
            lambda state: {
                "state_dict": {
                    **{f"model.{name}": t for name, t in wrong(state).items()},
                    **{f"ema_model.{name}": t for name, t in state.items()},
                }
            },
        ),
        ("g", lambda state: {"d": {"features.0.weight": torch.ones(3)}, "g": state}),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
def test_tensors_are_found_wherever_they_are(
    tmp_path: Path, state: dict[str, Tensor], place: str, checkpoint: Any, suffix: str
) -> None:
    torch.save(checkpoint(state), tmp_path / f"a{suffix}")
    assert_loads(tmp_path / f"a{suffix}", state)
    loaded = load_weights(network(), tmp_path / f"a{suffix}")
    assert loaded.place == place
    assert 0 < len(loaded.note) <= 300


def test_the_note_says_what_was_taken(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "a.pth"
    torch.save(state, path)
    assert load_weights(network(), path).note == ""
    torch.save(
        {"state_dict": {"loss.weight": torch.ones(2), **{f"model.{n}": t for n, t in state.items()}}, "net": state},
        path,
    )
    assert load_weights(network(), path).note == (
        f"weights: loading the tensors under 'state_dict' from {path}, their names without 'model.', without 1 such as "
        "'loss.weight'; 'net' would fit too"
    )


def test_of_several_networks_none_is_guessed(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({"student": wrong(state), "teacher": state}, tmp_path / "a.pth")
    assert "holds several networks that fit: 'student' and 'teacher': save one" in refusal(tmp_path / "a.pth")


def test_what_does_not_fit_is_told_without_the_prefix(tmp_path: Path, state: dict[str, Tensor]) -> None:
    other = create("digits_cnn", num_classes=7, in_channels=1).state_dict()
    torch.save({"net": {f"model.{name}": tensor for name, tensor in other.items()}}, tmp_path / "a.pth")
    assert "the file has 7 classes and the network 10" in refusal(tmp_path / "a.pth")
    del state["classifier.bias"]
    torch.save({"net": {f"model.{name}": tensor for name, tensor in state.items()}}, tmp_path / "a.pth")
    assert "does not fit DigitsCNN: 1 missing (classifier.bias)" in refusal(tmp_path / "a.pth")
    assert load_weights(network(), tmp_path / "a.pth", replace_head=HEAD).fresh == tuple(sorted(HEAD, reverse=True))


class Odd(enum.Enum):
    """Of a user's own program."""

    ONE = 1


@pytest.mark.parametrize("legacy", [False, True])
def test_data_beside_the_tensors_are_passed_over(tmp_path: Path, state: dict[str, Tensor], legacy: bool) -> None:
    data = {
        "numbers": [np.float64(71.2), np.int64(3), np.bool_(True), np.float32, np.dtype("f4")],
        "array": np.arange(5),
        "names": np.array(["a", "b"]),
        "objects": np.array([None, {}], dtype=object),
        "rng": [np.random.RandomState(0).get_state(), np.random.RandomState(0), np.random.default_rng(0)],
        "torch": torch.__version__,
        "when": [dt.datetime.now(dt.UTC), dt.timedelta(1), dt.date(2020, 1, 1)],
        "where": [tmp_path, PurePosixPath("a")],
        "best": defaultdict(list, {"a": [1]}),
        "last": deque([1, 2], maxlen=3),
        "more": [argparse.Namespace(a=np.float64(1)), Decimal("1.5"), {1, 2}, 1j, b"x", uuid.UUID(int=3), slice(3)],
    }
    torch.save(
        {"state_dict": defaultdict(list, state), **data}, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy
    )
    assert_loads(tmp_path / "a.pth", state)
    torch.save({"state_dict": state, "of": Odd.ONE}, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    assert f"it contains {__name__}.Odd and would run code" in refusal(tmp_path / "a.pth")


class EasyDict(dict[str, Any]):
    """As easydict's: a dictionary whose keys are attributes too."""


def test_dictionaries_of_other_libraries_are_passed_over(
    tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EasyDict, "__module__", "easydict")
    module = types.ModuleType("easydict")
    module.EasyDict = EasyDict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "easydict", module)
    config = EasyDict(lr=0.1)
    config.lr = 0.1  # type: ignore[attr-defined]
    torch.save({"model": state, "config": config}, tmp_path / "a.pth")
    monkeypatch.delitem(sys.modules, "easydict")
    assert_loads(tmp_path / "a.pth", state)


def tar(path: Path, _: dict[str, Tensor]) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "a")


def zipped(path: Path, _: dict[str, Tensor]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(__file__, "a")


def script(path: Path, _: dict[str, Tensor]) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(path)  # type: ignore[no-untyped-call]


def test_damaged_state_dicts_are_refused_in_one_short_line(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path, rng = tmp_path / "a.pth", random.Random(0)
    for legacy in (False, True):
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=not legacy)
        data = path.read_bytes()
        for _ in range(100):
            damaged = bytearray(data)
            for _ in range(rng.choice([1, 3, 30])):
                damaged[rng.randrange(min(len(data), 6000))] = rng.randrange(256)
            path.write_bytes(damaged if rng.random() < 0.8 else damaged[: rng.randrange(len(data))])
            try:
                load_weights(network(), path)
            except ValueError as error:
                line = str(error)
                assert not any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in line), line
                assert len(line) <= 300, line
                assert "weights_only" not in line, line


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 44\n"
OTHERS: dict[str, tuple[Callable[[Path, dict[str, Tensor]], object], str]] = {
    "lfs": (lambda path, _: path.write_bytes(LFS), "a Git LFS pointer, not the file itself: run 'git lfs pull'"),
    "html": (lambda path, _: path.write_text("\n<!DOCTYPE html><html></html>"), "an HTML page"),
    "empty": (lambda path, _: path.write_bytes(b""), "an empty file"),
    "gzip": (lambda path, _: path.write_bytes(gzip.compress(bytes(1000))), "a gzip archive: unpack it"),
    "tar": (tar, "a tar archive: unpack it"),
    "zip": (zipped, "a ZIP archive"),
    "script": (script, "a ZIP archive"),
    "pickle": (lambda path, state: path.write_bytes(pickle.dumps(state, protocol=4)), ""),
    "text": (lambda path, _: path.write_text("Not found"), ""),
    "noise": (lambda path, _: path.write_bytes(random.Random(0).randbytes(1000)), ""),
}


@pytest.mark.filterwarnings("ignore")  # torch's scripts are deprecated, and files of them are about
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", OTHERS)
def test_another_kind_of_file_is_named(tmp_path: Path, state: dict[str, Tensor], kind: str, suffix: str) -> None:
    make, told = OTHERS[kind]
    make(tmp_path / f"a{suffix}", state)
    if kind == "script" and suffix == ".pth":
        told = "it is TorchScript: convert it with torch.save(torch.jit.load(FILE).state_dict(), 'w.pth')"
    if kind == "pickle" and suffix == ".pth":
        told = "it is a pickle of protocol 4: save it with torch.save"
    message = refusal(tmp_path / f"a{suffix}")
    assert told in message
    assert message.startswith("weights: cannot read")
    assert "weights_only" not in message
    assert len(message) <= 300


def test_safetensors_under_another_name(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").rename(tmp_path / "a.bin")
    assert "it is a safetensors file: name it .safetensors" in refusal(tmp_path / "a.bin")


def test_a_path_that_is_too_long_for_a_name(tmp_path: Path) -> None:
    assert not is_weights_file("a" * 5000)
    with pytest.raises(ValueError, match="no such file") as error:
        resolve_weights("digits_cnn", "a" * 5000)
    assert len(str(error.value)) <= 300
    with pytest.raises(ValueError, match="no such file") as error:
        resolve_weights("digits_cnn", str(tmp_path) + "/a\x1b[31m" * 1000)
    assert len(str(error.value)) <= 300
    assert str(error.value).isprintable()
