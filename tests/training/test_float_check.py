"""Given weights whose accuracy cannot be right are not quantized, unless that is accepted."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inq_ray.models.registry import create
from inq_ray.models.weights.pretrained import stated_top1
from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.evaluation.float_accuracy import FloatAccuracyError
from inq_ray.training.float_check import check_float_accuracy, doubt_of_given, warning_of_trained
from inq_ray.training.report.events import Note
from tests.training.runs import Finished, needs_digits, run_here, tiny_config
from tests.training.toys import toy_task


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that know the digits."""
    folder = tmp_path_factory.mktemp("trained")
    config = tiny_config(folder, training={"float_epochs": 0, "epochs": 4, "lr": 0.1})
    finished = run_here(dataclasses.replace(config, plain=True))
    assert finished.summary["top1"] > 90
    return finished.folder.path / "model.safetensors"


@pytest.fixture(scope="module")
def shuffled(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with its classes in another order."""
    weights = load_file(trained)
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name].roll(1, dims=0).contiguous()
    path = tmp_path_factory.mktemp("shuffled") / "w.safetensors"
    save_file(weights, path)
    return path


def given(storage: Path, weights: Path, **sections: dict[str, Any]) -> RunConfig:
    network = {"weights": str(weights), **sections.pop("network", {})}
    training = {"float_epochs": 0, **sections.pop("training", {})}
    return tiny_config(storage, network=network, training=training, **sections)


def warnings(finished: Finished) -> list[str]:
    notes = [event.text for event in finished.told.events if isinstance(event, Note)]
    return [text for text in notes if text.startswith("warning: ")]


@needs_digits
def test_another_order_of_classes_is_refused_before_anything_is_frozen(shuffled: Path, tmp_path: Path) -> None:
    told = r"with classes in another order \(0 is predicted as \d, 1 is .*: rename the classes.*--accept-float"
    with pytest.raises(FloatAccuracyError, match=told):
        run_here(given(tmp_path, shuffled))
    assert not list((tmp_path / "tiny").glob("**/*.safetensors"))


@needs_digits
def test_a_network_that_knows_nothing_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(create("digits_cnn", num_classes=10, in_channels=1).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(FloatAccuracyError, match=r"near chance .*order.*--mean.*--weights.*--accept-float-accuracy"):
        run_here(given(tmp_path, tmp_path / "w.safetensors"))


@needs_digits
def test_it_goes_on_if_accepted(shuffled: Path, tmp_path: Path) -> None:
    finished = run_here(given(tmp_path, shuffled, network={"accept_float_accuracy": True}))
    (warning,) = warnings(finished)
    assert "another order" in warning
    assert [row.stage for row in finished.told.rows] == [0, 1, 1, 2, 2]


@needs_digits
def test_a_good_network_is_not_warned_about(trained: Path, tmp_path: Path) -> None:
    assert warnings(run_here(given(tmp_path, trained))) == []


@needs_digits
@pytest.mark.parametrize("training", [{"float_epochs": 1}, {"epochs": 1}])
def test_what_the_run_trains_itself_is_warned_about(training: dict[str, Any], shuffled: Path, tmp_path: Path) -> None:
    config = given(tmp_path, shuffled, training=training)
    finished = run_here(dataclasses.replace(config, plain="float_epochs" not in training))
    assert any("another order" in warning for warning in warnings(finished))


@needs_digits
def test_a_network_that_was_trained_to_nothing_is_warned_about(tmp_path: Path) -> None:
    training = {"float_epochs": 1, "float_lr": 1e-7, "epochs": 0}
    (warning,) = warnings(run_here(tiny_config(tmp_path, training=training)))
    for part in ("near chance", "--float-epochs", "--float-lr"):
        assert part in warning


def imagenet(**network: Any) -> RunConfig:
    return default_recipe("resnet18", 5).replace(network=network)


def measured(top1: float) -> Accuracy:
    return Accuracy(num_samples=50_000, num_top1=round(500 * top1), num_top5=50_000, loss=1.0)


def test_weights_by_name_are_held_to_what_they_state() -> None:
    info = dataclasses.replace(toy_task(4).info, class_names=tuple(map(str, range(1000))))
    named = imagenet(weights="DEFAULT")
    assert doubt_of_given(named, info, measured(69.7)) is None
    doubt = doubt_of_given(named, info, measured(61.0))
    assert doubt is not None
    with pytest.raises(FloatAccuracyError, match=r"61.00 % .*69.76 % is published.*--crop-size") as refusal:
        check_float_accuracy(named, doubt)
    assert len(f"jobs/quantize_imagenet.py: {refusal.value}") <= 300
    check_float_accuracy(imagenet(weights="DEFAULT", accept_float_accuracy=True), doubt)
    assert doubt_of_given(imagenet(weights="w.pth"), info, measured(61.0)) is None


def test_a_head_that_starts_fresh_is_no_news() -> None:
    info = dataclasses.replace(toy_task(4).info, class_names=tuple(map(str, range(1000))))
    assert doubt_of_given(imagenet(weights="DEFAULT", replace_head=True), info, measured(0.1)) is None
    assert "near chance" in (warning_of_trained(info, measured(0.1)) or "")
    assert warning_of_trained(info, measured(40.0)) is None


@pytest.mark.parametrize(
    ("arch", "weights", "top1"),
    [
        ("resnet18", "IMAGENET1K_V1", 69.758),
        ("resnet18", None, None),
        ("resnet18", "w.pth", None),
        ("digits_cnn", "DEFAULT", None),
        ("timm/resnet18", "DEFAULT", None),
        ("package:net", "DEFAULT", None),
    ],
)
def test_what_is_stated(arch: str, weights: str | None, top1: float | None) -> None:
    assert stated_top1(arch, weights) == top1
