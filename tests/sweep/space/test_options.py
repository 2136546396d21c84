import json
from pathlib import Path

import pytest

from inq_ray.sweep.command_line import SweepCommand, parse
from inq_ray.sweep.space.axes import Choices, FreeSchedules, Range
from inq_ray.sweep.space.options import SpaceOptions, space_of
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.sweep.space.space import BITS, EPOCHS, LR, SCHEDULE, STRATEGY, WEIGHT_DECAY, configured
from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe, recipe

EVERY_FLAG = """
    --schedules 0.5,0.75,1 0.5,0.9,1 --num-stages 2 3 --first-portion 0.5 0.75 --rising geometric linear
    --lrs 0.01 0.02 --epochs-per-stage 1 2 --bits 5 3 --strategies pruning random --weight-decays 1e-5..1e-3
    --search optuna --trials 7 --search-seed 3 --objective top1-bits --stopping asha --reduction 3 --grace-portion 0.3
    --no-reuse --retries 2 --max-concurrent 4 --workers-per-trial 3 --holdout 100 --momentum 0.5 --name n --dry-run
    --verbose
"""


def test_every_flag_arrives() -> None:
    command = parse(EVERY_FLAG.split())
    assert dict(space_of(command.space).axes) == {
        SCHEDULE: Choices(((0.5, 0.75, 1.0), (0.5, 0.9, 1.0), (0.5, 1.0), (0.75, 1.0), (0.75, 0.9375, 1.0),
                           (0.75, 0.875, 1.0))),
        LR: Choices((0.01, 0.02)),
        EPOCHS: Choices((1, 2)),
        BITS: Choices((5, 3)),
        STRATEGY: Choices(("pruning", "random")),
        WEIGHT_DECAY: Range(1e-5, 1e-3, log=True),
    }  # fmt: skip
    assert command.search == SearchOptions(
        search="optuna", trials=7, search_seed=3, objective="top1-bits", stopping="asha", reduction=3.0,
        grace_portion=0.3, reuse=False, retries=2, max_concurrent=4, workers_per_trial=3,
    )  # fmt: skip
    assert command.search.workers(command.run).cluster.num_workers == 3
    assert (command.run.data.holdout, command.run.training.momentum, command.run.output.name) == (100, 0.5, "n")
    assert (command.action.dry_run, command.action.verbose) == (True, True)


def test_without_flags_schedules_that_share_are_searched() -> None:
    command = parse([])
    assert command.run == default_recipe("digits_cnn", 5)
    axes = space_of(command.space).axes
    assert list(axes) == [SCHEDULE]
    assert isinstance(axes[SCHEDULE], Choices)


def test_what_a_recipe_says_of_each_of_its_stages_is_not_of_those_that_are_searched() -> None:
    flags = ["--recipe", "cifar_resnet20-2bit", "--schedules", "0.5,1", "0.5,0.75,1"]
    start, command = recipe("cifar_resnet20-2bit"), parse(flags)
    num_epochs = sum(start.stage_epochs)
    assert [sum(run.stage_epochs) for run in _runs(command)] == [num_epochs] * 2
    assert [run.lr_of(2) for run in _runs(command)] == [start.training.lr] * 2
    with pytest.raises(ValueError, match=r"--epochs-each must have one number for each of the 2 stages .* got 10: 2"):
        _runs(parse([*flags, "--epochs-each", *["2"] * 10]))
    assert parse(["--recipe", "cifar_resnet20-2bit", "--lrs", "0.1"]).run.stage_epochs == start.stage_epochs
    same = ["--recipe", "cifar_resnet20-5bit", "--schedules", "0.4,0.6,0.8,1", "--epochs-each", "7", "1", "1", "1"]
    assert [run.stage_epochs for run in _runs(parse(same))] == [(7, 1, 1, 1)]


def _runs(command: SweepCommand) -> list[RunConfig]:
    schedules = space_of(command.space).axes[SCHEDULE]
    assert isinstance(schedules, Choices)
    return [configured(command.run, {SCHEDULE: schedule}) for schedule in schedules.values]


def test_free_rising_is_left_to_the_searcher() -> None:
    axes = space_of(parse(["--rising", "free", "--num-stages", "3", "4", "--search", "optuna"]).space).axes
    assert axes == {SCHEDULE: FreeSchedules((3, 4))}


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_file_says_the_same_as_flags(suffix: str, tmp_path: Path) -> None:
    values = {
        "schedules": ["0.5,0.75,1", [0.5, 0.9, 1]], "num_stages": 2, "lrs": [0.01, 0.02], "bits": [5, 3],
        "weight_decays": "1e-5..1e-3", "epochs_per_stage": [1], "strategies": ["random"],
        "fields": {"training.momentum": [0.8, 0.9], "training.label_smoothing": "0.01..0.1"},
    }  # fmt: skip
    path = tmp_path / f"space{suffix}"
    path.write_text(json.dumps(values))  # which is YAML too
    axes = dict(space_of(SpaceOptions(space=str(path))).axes)
    assert axes.pop("training.momentum") == Choices((0.8, 0.9))
    assert axes.pop("training.label_smoothing") == Range(0.01, 0.1)
    flags = "--schedules 0.5,0.75,1 0.5,0.9,1 --num-stages 2 --lrs 0.01 0.02 --bits 5 3 --weight-decays 1e-5..1e-3 "
    assert axes == space_of(parse(f"{flags} --epochs-per-stage 1 --strategies random".split()).space).axes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "object of names"),
        ("lr: 3", "lr is unknown; allowed are schedules"),
        ("bits: [a]", "bits must be a whole number, got 'a'"),
        ("bits: [true]", "bits must be a whole number, got True"),
        ("strategies: [best]", "strategies must be one of pruning, random.* got 'best'"),
        ("rising: [up]", "rising must be"),
        ("lrs: a", "'a' is neither a number nor a range"),
        ("a: [", "not valid YAML"),
        ("fields: {training.lrr: [1]}", "training.lrr cannot be searched; nearest: training.lr"),
        ("fields: {output.name: [a, b]}", "output.name cannot be searched"),
        ("fields: 3", "fields must be"),
        ("fields: {training.momentum: [a]}", "'a' is neither a number"),
        ("fields: {training.momentum: [{a: 1}]}", "training.momentum must be a number, got {'a': 1}"),
        ("fields: {training.lr: null}", "training.lr must be a number, got None"),
        ("fields: {training.nesterov: ['yes']}", "training.nesterov must be true or false, got 'yes'"),
        ("fields: {training.epochs: [1.5]}", "training.epochs must be a whole number, got 1.5"),
        ("fields: {training.epochs: '1..3'}", "training.epochs takes whole values, so it cannot be a range"),
        ("fields: {training.teacher: [a, b]}", "training.teacher cannot be searched"),
        ("fields: {training.seed: [0, 1]}", "run the sweep once for each --seed"),
        ("lrs: []", "lrs has no values"),
        ("fields: {training.lr: []}", "empty"),
        ("lrs: [0.1]\nfields: {training.lr: [0.2]}", "fields has training.lr, which is also set outside of it"),
        ("schedules: [0.5, 0.75, 1]", "separate the portions of a schedule by commas"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=says) as raised:
        space_of(SpaceOptions(space=str(path)))
    assert len(str(raised.value).splitlines()) == 1


def test_numbers_that_yaml_takes_for_texts_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("lrs: [1e-3]\nfields: {training.float_lr: [1e-1, 1e-2], training.clip_grad_norm: [null, 1]}")
    assert dict(space_of(SpaceOptions(space=str(path))).axes) == {
        LR: Choices((0.001,)),
        "training.float_lr": Choices((0.1, 0.01)),
        "training.clip_grad_norm": Choices((None, 1.0)),
    }


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--space /nowhere.yaml", "--space /nowhere.yaml: .*No such file"),
        ("--space /nowhere.yaml --bits 3", "either the file or flags"),
        ("--lrs a", "--lrs: 'a' is neither"),
        ("--lrs 0.1..0.01", "--lrs: a range must ascend"),
        ("--lrs 1e-4...1e-1 --search random", "a dot too many"),
        (
            "--lrs 0.3 0.1..0.2 --search random",
            r"'0.1..0.2' is neither a number nor a range .* \(a range must be the only value\)",
        ),
        ("--schedules 0.5 0.75 1", "separate the portions of a schedule by commas: 0.5,0.75,1"),
        ("--lrs 0..0.01", "above 0"),
        ("--bits 3 3", "has one twice"),
        ("--rising free --first-portion 0.5", "--rising free"),
        ("--first-portion 0.5", "--num-stages"),
        ("--schedules 0.5,0.4,1", "--schedules: portions"),
    ],
)
def test_what_cannot_be_searched_is_named(flags: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        space_of(parse(flags.split()).space)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--trials 0", "--trials must be at least 1"),
        ("--retries -1", "--retries must be at least 0"),
        ("--reduction 1", "--reduction must be finite and above 1"),
        ("--grace-portion 2", "--grace-portion"),
        ("--search gird", "grid"),
        ("--stopping hyperband", "asha"),
        ("--trials 5", "--trials has no effect: grid tries all combinations"),
        ("--search-seed 5", "--search-seed has no effect"),
        ("--objective top1-bits --search random", "--objective has no effect"),
        ("--reduction 4 --stopping median", "--reduction has no effect: it is for asha only"),
        ("--grace-portion 0.3", "--grace-portion has no effect: no trial is stopped"),
        ("--workers-per-trial 0", "--workers-per-trial must be at least 1"),
        ("--gpus-per-trial 0", "--gpus-per-trial must be at least 1"),
        ("--workers-per-trial 2 --num-workers 1", "--num-workers 1 contradicts 2 per trial"),
        ("--holdout 0", "--holdout 0: sweeps compare trials on held-out images"),
        ("--iterative-steps 0.5 1", "--iterative-steps has no effect: .* is searched"),
        ("--lrs 0.1 0.2 --lr-each 0.1 0.1 0.1 0.1", "--lr-each has no effect: training.lr is searched"),
        ("--epochs-per-stage 1 2 --epochs_total 9", "--epochs-total has no effect: training.epochs is searched"),
        ("--epochs-per-stage 1 2 --epochs-each 1 1 1 1", "--epochs-each has no effect: training.epochs is searched"),
        ("--lrs 0.1 0.2 --lr 0.3", "--lr has no effect: training.lr is searched"),
        ("--lrs 0.01 0.02 --lr 0.02", "--lr has no effect: training.lr is searched"),  # the recipe's own
        ("--lr 0", "--lr must be finite and above 0"),
        ("--schedules", "--schedules has no value: give at least one"),
        ("--schedules 0.5,,1", "'0.5,,1' is not a list of portions"),
        ("--learnin-rates 0.1", "--"),
        ("--space ~nobody-of-this-name/s.json", "No such file"),
    ],
)
def test_flags_that_are_not_allowed_are_one_line(flags: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        parse(flags.split())
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["search", "objective", "stopping"])
def test_words_that_nobody_knows_are_refused_in_a_library_too(name: str) -> None:
    with pytest.raises(ValueError, match=f"^--{name} must be one of .*, got 'gird'$"):
        SearchOptions(**{name: "gird"})  # type: ignore[arg-type]


def test_gpus_are_a_trials_workers() -> None:
    config = default_recipe("resnet18", 5)
    cluster = SearchOptions(gpus_per_trial=4).workers(config).cluster
    assert (cluster.num_workers, cluster.use_gpu) == (4, True)
    assert SearchOptions().workers(config) == config
    with pytest.raises(ValueError, match="differ"):
        SearchOptions(gpus_per_trial=4, workers_per_trial=2).workers(config)
