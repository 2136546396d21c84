"""What is found out before a sweep starts, and what a sweep that goes on must have in common with what was."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inq_ray.files.lock import locked
from inq_ray.sweep.folder import SweepFolder
from inq_ray.sweep.plan import config_on_test_set, plan_sweep, recipe_of
from inq_ray.sweep.space.axes import Choices, FreeSchedules, Range
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.sweep.space.space import BITS, LAYER_BITS, LR, SCHEDULE, Space
from inq_ray.training.checkpoint.checkpoints import store_of
from inq_ray.training.run_folder import RunFolder
from tests.data.folders import make_folder
from tests.data.parquet_files import encode, random_images, write_parquet
from tests.training.runs import needs_digits, tiny_config

pytestmark = needs_digits

SPACE = Space({SCHEDULE: Choices(((0.5, 0.75, 1.0), (0.5, 1.0)))})


def test_choices_are_made_on_held_out_images(tmp_path: Path) -> None:
    plan = plan_sweep(tiny_config(tmp_path), SPACE, SearchOptions())
    assert plan.base.data.holdout == 129
    assert plan_sweep(tiny_config(tmp_path, data={"holdout": 50}), SPACE, SearchOptions()).base.data.holdout == 50
    trial = plan.registry().trials[1]
    assert trial.config.data.holdout == 129
    assert RunFolder.planned(trial.config).path == tmp_path / "tiny" / "t002"
    config = config_on_test_set(plan, trial)
    assert config is not None
    assert config.data.holdout == 0
    assert config.network.weights == str(tmp_path / "tiny" / "t002" / "model.safetensors")
    assert recipe_of(trial).output.name is None
    assert not any(tmp_path.iterdir())


def folder_without_val(root: Path) -> Path:
    images = [encode(pixels) for pixels in random_images(40, height=40, width=40)]
    return make_folder(root, {f"train/{number % 2}/{number}.png": image for number, image in enumerate(images)})


def parquet_of_train(root: Path) -> Path:
    root.mkdir()
    images = [encode(pixels) for pixels in random_images(40)]
    write_parquet(root / "train-00000-of-00001.parquet", images, [number % 3 for number in range(40)])
    return root


@pytest.mark.parametrize(
    ("make", "crop_size"), [(folder_without_val, 32), (parquet_of_train, None)], ids=["folder", "parquet"]
)
def test_data_without_a_test_set_are_swept_on_held_out_images(
    make: Callable[[Path], Path], crop_size: int | None, tmp_path: Path
) -> None:
    data = {"data": str(make(tmp_path / "data")), "crop_size": crop_size}
    config = tiny_config(tmp_path, data=data, network={"arch": "cifar_resnet20"}).replace(training={"batch_size": 4})
    plan = plan_sweep(config, SPACE, SearchOptions())
    assert (plan.info.num_train, plan.info.num_test, plan.base.data.holdout) == (40, 0, 4)
    assert config_on_test_set(plan, plan.registry().trials[0]) is None


def test_data_without_training_images_are_named_as_that(tmp_path: Path) -> None:
    images = {f"val/{number}/a.png": encode(random_images(1)[0]) for number in range(2)}
    config = tiny_config(tmp_path, data={"data": str(make_folder(tmp_path / "data", images)), "crop_size": 32})
    with pytest.raises(ValueError, match="has no images to train on"):
        plan_sweep(config, SPACE, SearchOptions())


def test_the_same_command_has_the_same_name(tmp_path: Path) -> None:
    config = tiny_config(tmp_path).replace(output={"name": None})
    name = plan_sweep(config, SPACE, SearchOptions()).base.output.name
    assert name is not None
    assert name.startswith("sweep-digits_cnn-")
    assert plan_sweep(config, SPACE, SearchOptions()).base.output.name == name
    elsewhere = config.replace(output={"storage_path": str(tmp_path / "elsewhere")})
    assert plan_sweep(elsewhere, SPACE, SearchOptions()).base.output.name == name
    for other in (config.replace(training={"lr": 0.5}), config.replace(data={"holdout": 7})):
        assert plan_sweep(other, SPACE, SearchOptions()).base.output.name != name
    assert plan_sweep(config, SPACE, SearchOptions(stopping="asha")).base.output.name != name


@pytest.mark.parametrize(
    ("space", "options", "says"),
    [
        (Space({LR: Range(0.1, 0.2)}), SearchOptions(), "--search grid needs lists .* training.lr is a range"),
        (Space({SCHEDULE: FreeSchedules()}), SearchOptions(), "random or optuna"),
        (Space({BITS: Choices((5, 9))}), SearchOptions(), "--weight-bits"),
        (Space({LR: Choices((0.0,))}), SearchOptions(), "--lr must be finite and above 0"),
        (Space({"training.batch_size": Choices((5000,))}), SearchOptions(), "--batch-size 5000"),
        (Space({"training.batch_size": Choices((50, 5000))}), SearchOptions(), "--batch-size 5000"),
        (Space({"quantization.skip": Choices(((), ("nowhere",)))}), SearchOptions(), "nowhere"),
        (Space({"training.momentum": Range(0.5, 1.5, log=False)}), SearchOptions(search="optuna"), "--momentum"),
        (
            Space({"training.momentum": Choices((0.9, 0.0)), "training.nesterov": Choices((False, True))}),
            SearchOptions(search="optuna"),
            "--nesterov needs",
        ),
        (SPACE, SearchOptions(search="optuna", objective="top1-bits"), "add --bits"),
        (
            Space({BITS: Choices((5, 3)), LAYER_BITS: Choices(((), ("classifier=8",)))}),
            SearchOptions(search="optuna", objective="top1-bits"),
            "counts --bits alone",
        ),
        (Space({LAYER_BITS: Choices(((), ("nowhere=3",)))}), SearchOptions(), "--layer-bits: the pattern 'nowhere'"),
    ],
)
def test_what_cannot_run_is_refused(space: Space, options: SearchOptions, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        plan_sweep(tiny_config(tmp_path), space, options).registry()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"output": {"resume": "never"}}, "--resume is for single runs"),
        ({"cluster": {"num_workers": "1..2"}}, "at one number of workers only"),
    ],
)
def test_what_only_single_runs_have_is_refused(sections: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        plan_sweep(tiny_config(tmp_path).replace(**sections), SPACE, SearchOptions())


def test_a_run_without_stages_is_not_swept(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"epochs": 1, "float_epochs": 0})
    with pytest.raises(ValueError, match="--plain has no stages"):
        plan_sweep(dataclasses.replace(config, plain=True), SPACE, SearchOptions())


@pytest.mark.parametrize(
    ("sections", "space", "options", "says"),
    [
        ({"training": {"lr": 0.5}}, SPACE, SearchOptions(), "training.lr"),
        ({}, Space({LR: Choices((0.1,))}), SearchOptions(), "space.quantization.iterative_steps, space.training.lr"),
        ({}, SPACE, SearchOptions(stopping="asha"), "stopping"),
        ({"training": {"seed": 3}}, SPACE, SearchOptions(), "training.seed, weights"),
    ],
)
def test_a_sweep_for_something_else_does_not_go_on(
    sections: dict[str, Any], space: Space, options: SearchOptions, says: str, tmp_path: Path
) -> None:
    plan = plan_sweep(tiny_config(tmp_path), SPACE, SearchOptions())
    state = json.loads(json.dumps(plan.state(plan.registry())))
    assert [trial.name for trial in plan.registry(state).trials] == ["t001", "t002"]
    free = plan_sweep(tiny_config(tmp_path), SPACE, SearchOptions(retries=5, max_concurrent=1))
    assert len(free.registry(state).trials) == 2
    training = {**sections.get("training", {}), "float_epochs": 1, "epochs": 1}
    other = plan_sweep(tiny_config(tmp_path, training=training), space, options)
    with pytest.raises(ValueError, match=f"^--name tiny: the sweep was started with other {says}: set them as before"):
        other.registry(state)


@pytest.mark.parametrize("name", ["weights", "teacher", "code", "fingerprint"])
def test_files_that_have_changed_are_noticed_when_a_sweep_goes_on(name: str, tmp_path: Path) -> None:
    plan = plan_sweep(tiny_config(tmp_path), SPACE, SearchOptions())
    state = json.loads(json.dumps(plan.state(plan.registry())))
    state["origin"][name] = "other"
    with pytest.raises(ValueError, match=f"was started with other {name}: set them as before"):
        plan.registry(state)


def test_two_sweeps_of_one_name_are_not_run_at_once_and_others_are(tmp_path: Path) -> None:
    folder, other = SweepFolder(tmp_path / "one"), SweepFolder(tmp_path / "other")
    with folder.held(print):
        with pytest.raises(ValueError, match=r"--name one: this sweep is running"), folder.held(print):
            raise AssertionError("it is held")
        with other.held(print):
            other.write({"log": []})
            with locked(other.path / "another file"):
                pass
    with folder.held(print):
        pass
    assert other.read() == {"format_version": 1, "log": []}


def test_what_is_no_sweep_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "file").write_text("")
    with pytest.raises(ValueError, match=r"--name tiny: .* exists and is not a sweep"):
        plan_sweep(tiny_config(tmp_path), SPACE, SearchOptions())
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match=r"--storage-path .*file"):
        plan_sweep(tiny_config(file), SPACE, SearchOptions())


def test_a_sweep_that_was_ended_before_it_wrote_anything_starts(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "tiny")
    with folder.held(print):
        folder.check_usable()
    assert plan_sweep(tiny_config(tmp_path), SPACE, SearchOptions()).folder == folder


def test_checkpoints_elsewhere_are_those_of_one_sweep(tmp_path: Path) -> None:
    config = tiny_config(tmp_path).replace(output={"checkpoint_path": str(tmp_path / "elsewhere/")})
    for name in ("one", "other"):
        plan = plan_sweep(config.replace(output={"name": name}), SPACE, SearchOptions())
        trial = plan.registry().trials[0]
        assert store_of(trial.config).location.path == str(tmp_path / "elsewhere" / name / "t001")
        assert recipe_of(trial).output.checkpoint_path is None


def test_an_overwritten_sweep_leaves_no_checkpoints_elsewhere(tmp_path: Path) -> None:
    config = tiny_config(tmp_path).replace(output={"checkpoint_path": str(tmp_path / "elsewhere")})
    plan = plan_sweep(config, SPACE, SearchOptions())
    plan.discard_checkpoints()  # there are none
    other = plan_sweep(config.replace(output={"name": "other"}), SPACE, SearchOptions())
    folders = [
        Path(store_of(each.configured(name, {})).location.path) / "checkpoint-01-0000-00000000"
        for each in (plan, other)
        for name in ("t001", "t999")
    ]
    for folder in folders:
        folder.mkdir(parents=True)
    (tmp_path / "elsewhere" / "tiny" / "a file of somebody's").write_text("")
    plan.discard_checkpoints()
    assert [folder.exists() for folder in folders] == [False, False, True, True]


@pytest.mark.parametrize("each", [{"epochs_each": (1, 1, 1)}, {"lr_each": (0.1, 0.1, 0.1)}])
def test_numbers_of_single_stages_must_fit_every_schedule_that_rises_freely(
    tmp_path: Path, each: dict[str, Any]
) -> None:
    config = tiny_config(tmp_path).replace(quantization={"iterative_steps": (0.5, 0.75, 1.0)}, training=each)
    options = SearchOptions(search="optuna", trials=2)
    plan_sweep(config, Space({SCHEDULE: FreeSchedules(num_stages=(3,))}), options)
    with pytest.raises(ValueError, match=r"one number for each of the 4 stages .* got 3"):
        plan_sweep(config, Space({SCHEDULE: FreeSchedules(num_stages=(3, 4))}), options)


def test_a_broken_state_is_said(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    assert folder.read() is None
    for text in ("", "[]", "{}", "{"):
        folder.state.write_text(text)
        with pytest.raises(ValueError, match="is damaged"):
            folder.read()
    folder.state.write_text('{"format_version": 9}')
    with pytest.raises(ValueError, match="has format 9, this program reads 1"):
        folder.read()


def test_a_state_that_lacks_something_is_broken(tmp_path: Path) -> None:
    plan = plan_sweep(tiny_config(tmp_path), SPACE, SearchOptions())
    state = plan.state(plan.registry())
    for name in state:
        less = {each: state[each] for each in state if each != name}
        with pytest.raises(
            ValueError,
            match=rf"sweep\.json is damaged: {name} is missing: repair it, or delete the sweep with --overwrite",
        ):
            plan.registry(json.loads(json.dumps(less)))


def test_an_earlier_sweep_is_deleted_when_asked(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    with folder.held(print):
        folder.write({})
        (folder.path / "t001").mkdir()
        (folder.path / "t001" / "file").write_text("")
        folder.clear()
        assert [path.name for path in folder.path.iterdir()] == [".lock"]
