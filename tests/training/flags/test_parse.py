import io
import json
import os
from pathlib import Path

import pytest

from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe, lossless_recipe, recipe
from inq_ray.training.flags.parse import Command, parse

pytestmark = pytest.mark.system

EVERY_FLAG = """
    --data D --holdout 5 --arch resnet50 --weights W --weight-bits 4 --iterative-steps 0.25 0.5 1 --strategy random
    --skip fc layer1.* --epochs 7 --float-epochs 2 --batch-size 96 --accumulate 3 --lr 0.3 --float-lr 0.4
    --momentum 0.8 --nesterov --weight-decay 0.01 --lr-schedule constant --lr-step-epochs 1.5 --lr-gamma 0.5
    --warmup-epochs 0.5 --seed 9 --precision bf16 --no-channels-last --num-workers 3 --use-gpu --cpus-per-worker 2
    --storage-path S --name N --overwrite --verbose --log-format json --dry-run
    --loader-workers 4 --shuffle-buffer 100 --skip-bad-images 6 --crop-size 192 --train-crop-size 176 --resize-size 200
    --interpolation bicubic --mean 0.5 0.25 0.125 --std 0.3 --auto-augment randaugment --random-erasing 0.1
    --replace-head --epochs-total 11 --label-smoothing 0.2 --mixup 0.3 --cutmix 1.5 --clip-grad-norm 2.5
    --ema-decay 0.99 --compile --sync-batchnorm
    --follow-links --limit-batches 12 --bn-images 640 --lr-each 0.3 0.2 0.1 --print-freq 13 --track tensorboard wandb
"""


def test_no_flags_are_the_digits() -> None:
    assert parse([]) == Command(run=default_recipe("digits_cnn", 5))


def test_every_flag_arrives() -> None:
    command = parse(EVERY_FLAG.split())
    config = command.run
    assert (config.data.data, config.data.follow_links, config.data.holdout) == ("D", True, 5)
    assert (config.network.arch, config.network.weights) == ("resnet50", "W")
    quantization, training = config.quantization, config.training
    assert (quantization.weight_bits, quantization.iterative_steps) == (4, (0.25, 0.5, 1.0))
    assert (quantization.strategy, quantization.skip) == ("random", ("fc", "layer1.*"))
    assert (training.epochs, training.float_epochs, training.batch_size, training.accumulate) == (7, 2, 96, 3)
    assert (training.lr, training.float_lr, training.momentum, training.nesterov) == (0.3, 0.4, 0.8, True)
    assert (training.weight_decay, training.lr_schedule, training.lr_step_epochs) == (0.01, "constant", 1.5)
    assert (training.lr_gamma, training.warmup_epochs, training.seed) == (0.5, 0.5, 9)
    assert (training.precision, training.channels_last) == ("bf16", False)
    assert (config.cluster.num_workers, config.cluster.use_gpu, config.cluster.cpus_per_worker) == (3, True, 2)
    assert (config.output.storage_path, config.output.name, config.output.overwrite) == ("S", "N", True)
    data = config.data
    assert (data.loader_workers, data.shuffle_buffer, data.skip_bad_images) == (4, 100, 6)
    assert (data.crop_size, data.train_crop_size, data.resize_size, data.interpolation) == (192, 176, 200, "bicubic")
    assert (data.mean, data.std) == ((0.5, 0.25, 0.125), (0.3,))
    assert (data.auto_augment, data.random_erasing, config.network.replace_head) == ("randaugment", 0.1, True)
    assert training.lr_each == (0.3, 0.2, 0.1)
    assert training.bn_images == 640
    assert parse(["--epochs-each", "1", "2", "0", "4"]).run.stage_epochs == (1, 2, 0, 4)
    assert (training.epochs_total, training.label_smoothing, training.mixup, training.cutmix) == (11, 0.2, 0.3, 1.5)
    assert (training.clip_grad_norm, training.ema_decay, training.limit_batches) == (2.5, 0.99, 12)
    assert (training.compile, training.sync_batchnorm) == (True, True)
    assert (config.output.print_freq, config.output.track) == (13, ("tensorboard", "wandb"))
    action = command.action
    assert (action.verbose, action.dry_run, action.evaluate, config.plain) == (True, True, False, False)
    assert action.log_format == "json"


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("-a resnet18", "--arch resnet18"),
        ("-b 64", "--batch-size 64"),
        ("-e --weights w", "--evaluate --weights w"),
        ("--wd 0.1", "--weight-decay 0.1"),
        ("--wd=0.1", "--weight-decay=0.1"),
        ("--learning-rate 0.2", "--lr 0.2"),
        ("--learning-rate=0.2", "--lr=0.2"),
        ("-j 3 -p 10", "--loader-workers 3 --print-freq 10"),
        ("--workers=3 --print_freq 10", "--loader-workers 3 --print-freq 10"),
        ("-a resnet18 --pretrained", "--arch resnet18 --weights DEFAULT"),
        ("--no-quantize --epochs 2", "--plain --epochs 2"),
        ("--quantize", ""),
        ("--log_dir logs", "--storage-path logs"),
        ("--weight_bits 3 --batch_size=32", "--weight-bits 3 --batch-size 32"),
        ("--iterative_steps 0.5 1 --dry_run", "--iterative-steps 0.5 1 --dry-run"),
    ],
)
def test_short_and_old_names(short: str, long: str) -> None:
    assert parse(short.split()) == parse(long.split())


@pytest.mark.parametrize("flag", ["--world-size 2", "--dist_url=env://", "--gpu 0", "--multiprocessing-distributed"])
def test_flags_of_the_port_for_what_is_different_here(flag: str) -> None:
    with pytest.raises(ValueError, match=r"^--[a-z_-]+ of INQ-pytorch's example is not supported: "):
        parse(flag.split())


def test_defaults_follow_from_network_bits_and_data() -> None:
    assert parse(["-a", "resnet18", "--weight-bits", "2"]).run == default_recipe("resnet18", 2)
    assert parse(["--arch=resnet18", "--weight_bits=3"]).run == default_recipe("resnet18", 3)
    assert parse(["--data", "somewhere"]).run.network.arch == "resnet18"
    assert parse(["--data", "digits"]).run.network.arch == "digits_cnn"


def test_a_recipe_is_where_flags_start_from() -> None:
    assert parse(["--recipe", "resnet18-3bit"]).run == recipe("resnet18-3bit")
    changed = parse(["--recipe", "resnet18-3bit", "--lr", "0.5"]).run
    assert changed == recipe("resnet18-3bit").replace(training={"lr": 0.5})


def test_epochs_of_a_recipes_stages_are_shared_out_to_others() -> None:
    arguments = ["--recipe", "cifar_resnet20-5bit", "--iterative-steps", "0.5", "1"]
    total = sum(recipe("cifar_resnet20-5bit").stage_epochs)
    assert parse(arguments).run.stage_epochs == (total // 2, total - total // 2)
    assert parse([*arguments, "--epochs-each", "3", "1"]).run.stage_epochs == (3, 1)
    assert parse([*arguments, "--epochs", "2"]).run.stage_epochs == (2, 2)
    assert parse([*arguments, "--epochs-total", "3"]).run.stage_epochs == (2, 1)


def test_rates_of_a_recipes_stages_are_not_those_of_others() -> None:
    start = recipe("cifar_resnet20-2bit")
    assert start.lr_of(10) == 2 * start.lr_of(1)
    arguments = ["--recipe", "cifar_resnet20-2bit", "--iterative-steps", "0.5", "1"]
    assert [parse(arguments).run.lr_of(stage) for stage in (1, 2)] == [start.training.lr] * 2
    assert [parse([*arguments, "--lr-each", "0.5", "0.25"]).run.lr_of(stage) for stage in (1, 2)] == [0.5, 0.25]
    assert parse(["--recipe", "cifar_resnet20-2bit", "--lr", "0.3"]).run.lr_of(10) == 0.3


def test_the_lossless_recipe_is_that_of_the_network_and_bits() -> None:
    assert parse(["--recipe", "lossless", "--weight-bits", "3", "-a", "cifar_resnet32"]).run == lossless_recipe(
        "cifar_resnet32", 3
    )
    assert parse(["--recipe", "lossless", "--data", "digits"]).run == lossless_recipe("digits_cnn", 5)
    for flags in ("--epochs 2", "--epochs-each 2 2 2 2", "--epochs-total 8"):
        assert sum(parse(f"--recipe lossless -a resnet18 {flags}".split()).run.stage_epochs) == 8
    for arch in ("resnet18", "digits_cnn", "cifar_resnet20"):
        plain = parse(["--recipe", "lossless", "-a", arch, "--plain"]).run
        assert plain.training == parse(["-a", arch, "--plain"]).run.training
        assert plain.float_epochs > 0
    given = parse(["--recipe", "lossless", "--data", "digits", "--weights", "digits.safetensors"]).run.training
    assert (given.float_epochs, given.lr_schedule, given.lr_probe) == (0, "cosine", True)
    assert not parse(["--recipe", "lossless", "-a", "resnet18", "--lr", "0.1"]).run.training.lr_probe
    assert not parse(["--recipe", "lossless", "-a", "resnet18", "--lr-each", *"1234"]).run.training.lr_probe
    with pytest.raises(ValueError, match=r"--epochs-total 3 is too few for 4 stages.*: use at least 4, or"):
        parse(["--recipe", "lossless", "-a", "resnet18", "--epochs-total", "3"])
    assert parse(["--recipe", "lossless", "-a", "resnet18", "--epochs-total", "12"]).run.stage_epochs == (2, 4, 5, 1)
    averaged = parse(["--recipe", "lossless", "-a", "resnet18", "--ema-decay", "0.99"]).run.training
    assert (averaged.ema_decay, averaged.ema_share) == (0.99, None)


@pytest.mark.parametrize("name", ["cifar_resnet20-4bit", "cifar_resnet20-5bit"])
def test_a_network_that_is_trained_first_is_not_trained_at_a_constant_rate(name: str) -> None:
    def course(flags: str) -> tuple[str, float | None]:
        training = parse(f"--recipe {name} {flags}".split()).run.training
        return training.lr_schedule, training.ema_share

    assert course("") == course("--float-epochs 0") == ("constant", 0.3)
    assert course("--float-epochs 30") == ("cosine", None)
    assert course("--float-epochs 30 --lr-schedule step --ema-share 0.2") == ("step", 0.2)


def test_weights_that_are_given_are_not_trained_anew_unless_asked_for() -> None:
    assert parse([]).run.training.float_epochs > 0
    assert parse(["--weights", "w.pth"]).run.training.float_epochs == 0
    assert parse(["--weights=w.pth", "--recipe", "digits_cnn-5bit"]).run.training.float_epochs == 0
    assert parse(["--weights", "w.pth", "--float-epochs", "2"]).run.training.float_epochs == 2


def test_plain_training_of_the_digits_is_that_before_the_first_stage() -> None:
    before, plain = parse([]).run.training, parse(["--plain"]).run.training
    assert (plain.epochs, plain.lr, plain.float_epochs) == (before.float_epochs, before.float_lr, 0)
    assert parse(["--plain", "--epochs", "2", "--lr", "0.3"]).run.training.epochs == 2


def test_a_file_starts_the_same_run_and_flags_override_it(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    config = default_recipe("resnet18", 2).replace(training={"lr": 0.7, "seed": 3}, output={"name": "first"})
    path.write_text(config.to_json())
    assert parse(["--config", str(path)]).run == config
    changed = parse(["--config", str(path), "--seed", "4", "--weight-bits", "3", "--name", "second"]).run
    assert changed == config.replace(training={"seed": 4}, quantization={"weight_bits": 3}, output={"name": "second"})


def test_one_number_for_all_stages_goes_before_those_of_each_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    config = default_recipe("digits_cnn", 5).replace(
        training={"epochs_each": (1, 2, 3, 4), "lr_each": (0.1, 0.2, 0.3, 0.4)}
    )
    path.write_text(config.to_json())
    start = ["--config", str(path)]
    assert parse(start).run == config
    assert parse([*start, "--epochs", "5"]).run.stage_epochs == (5, 5, 5, 5)
    assert parse([*start, "--epochs-total", "6"]).run.stage_epochs == (2, 2, 1, 1)
    assert parse([*start, "--epochs=5", "--epochs-each", "0", "0", "0", "1"]).run.stage_epochs == (0, 0, 0, 1)
    changed = parse([*start, "--learning-rate", "0.5"]).run
    assert [changed.lr_of(stage) for stage in (1, 4)] == [0.5, 0.5]
    assert changed.stage_epochs == (1, 2, 3, 4)
    others = parse([*start, "--iterative-steps", "0.5", "1"]).run
    assert (others.stage_epochs, others.training.lr_each) == ((5, 5), ())
    with pytest.raises(ValueError, match=r"--epochs-each must have one number for each of the 2 stages .* got 3"):
        parse([*start, "--iterative-steps", "0.5", "1", "--epochs-each", "1", "2", "3"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--batchsize 3", "--batchsize.*did you mean --batch-size"),
        ("--nonsense", "--nonsense"),
        ("extra", "extra"),
        ("--lr", "--lr"),
        ("--lr fast", "--lr.*'fast'"),
        ("--lr nan", "^--lr must be finite and above 0, got nan"),
        ("--wd x", "--weight-decay.*'x'"),
        ("--data", "--data"),
        ("--recipe", "--recipe"),
        ("--epochs 1.5", "--epochs.*'1.5'"),
        ("--weight-bits x", "--weight-bits.*'x'"),
        ("--weight-bits 9", "^--weight-bits.*2 to 8, got 9"),
        ("--weight-bits 1", "^--weight-bits.*2 to 8, got 1"),
        ("--strategy best", "--strategy.*pruning.*random, got 'best'"),
        ("--lr-schedule cosin", "--lr-schedule.*cosine.*'cosin'"),
        ("--iterative-steps", "^--iterative-steps"),
        ("--iterative-steps 0.5 0.4 1", "^--iterative-steps.*0.5 0.4 1"),
        ("--iterative-steps 0.5 0.75", "^--iterative-steps.*end at 1.0.*0.5 0.75"),
        ("--iterative-steps 0.5 1.5", "^--iterative-steps.*0.5 1.5"),
        ("--iterative-steps 0.5 half", "--iterative-steps.*'half'"),
        ("--iterative-steps 0.5,0.75,1", "^--iterative-steps 0.5,0.75,1: separate the numbers by spaces, not commas"),
        ("--config tests", "^--config tests: Is a directory; pass the config.json of a run"),
        ("--num-workers 0", "^--num-workers must be at least 1, got 0"),
        ("--num-workers 8..2", "^--num-workers 8..2 is an empty range: did you mean 2..8"),
        ("--num-workers two", "^--num-workers must be a number, or a range such as 2..8, got 'two'"),
        ("--num-workers 2..8 --batch-size 7", "^--batch-size 7 .* 8 workers .* at least 8"),
        ("--placement-timeout 10", "^--placement-timeout must be a time such as 30s, 10m or 2h, got '10'"),
        ("--precision fp16", "^--precision fp16 needs --use-gpu"),
        ("--batch-size 1", "^--batch-size 1 .*2 workers"),
        ("--name a/b", "^--name.*'a/b'"),
        ("--recipe resnet18-3bits", "^--recipe resnet18-3bits.*resnet18-3bit"),
        ("--recipe resnet18-3bit --config x", "exclude each other"),
        ("--config /nowhere/config.json", "^--config /nowhere/config.json: .*No such file"),
        ("--plain --float-epochs 3", "^--plain.*--float-epochs"),
    ],
)
def test_a_wrong_flag_or_value_is_one_line_that_names_it(
    flags: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse(flags.split())
    assert len(str(caught.value).splitlines()) == 1
    assert "run." not in str(caught.value)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("content", ["", "{", '{"training": {"speed": 1}}', '{"training": {"lr": "x"}}', "[1]"])
def test_a_file_that_is_no_configuration_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"^--config {path}: ") as caught:
        parse(["--config", str(path)])
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_with_an_unknown_name_names_it(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"training": {"epoch": 1}}))
    with pytest.raises(ValueError, match=r"'training\.epoch'.*training\.epochs"):
        parse(["--config", str(path)])


def test_help_fits_a_screen_and_has_what_matters_first(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--help", "-h"):
        with pytest.raises(SystemExit) as stopped:
            parse([flag])
        assert not stopped.value.code
        text = capsys.readouterr().out
        assert len(text.splitlines()) <= 45
        first = "data arch weights weight-bits recipe num-workers use-gpu name evaluate dry-run help-all"
        assert all(f"--{name}" in text for name in first.split())
        assert "--momentum" not in text


@pytest.mark.parametrize("flag", ["--help-all"])
def test_help_names_every_flag_and_exits_0(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse([flag])
    assert not stopped.value.code
    text = capsys.readouterr().out
    for name in ("--iterative-steps", "--batch-size", "--recipe", "--evaluate", "--dry-run", "--plain", "--config"):
        assert name in text
    assert "global batch size" in text
    assert "per stage" in text


def test_the_configuration_of_a_command_is_saved_whole() -> None:
    config = parse(["--lr", "0.3", "--skip", "a", "b"]).run
    assert RunConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("columns", ["20", "80", None])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_terminal_makes_no_difference_to_messages(
    columns: str | None, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdout", Terminal(io.BytesIO(), encoding=encoding))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(
        ValueError, match=r"^Unrecognized options: --batchsize, 3; did you mean --batch-size\? \(--help"
    ):
        parse(["--batchsize", "3"])
    with pytest.raises(ValueError, match=r"^--batch-size 1 \(global\) is too small for 2 workers .* at least 2$"):
        parse(["--batch-size", "1"])
    assert os.environ.get("COLUMNS") == columns


def test_a_range_of_workers() -> None:
    cluster = parse(["--num-workers", "2..8", "--placement-timeout", "1h"]).run.cluster
    assert (cluster.num_workers, cluster.workers, cluster.placement_seconds) == ("2..8", (2, 8), 3600)


def test_what_is_done_to_images() -> None:
    words = ["--no-flip", "--crop-scale", "0.5", "1", "--crop-ratio", "1", "1", "--channels", "1"]
    data = parse([*words, "--data", "/d", "--image-column", "i", "--label-column", "l"]).run.data
    assert (data.flip, data.crop_scale, data.crop_ratio, data.channels) == (False, (0.5, 1), (1, 1), 1)
    assert (data.image_column, data.label_column) == ("i", "l")
    assert (parse(["--flip"]).run.data.flip, parse([]).run.data.flip) == (True, None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--channels 2", r"--channels must be 1 \(gray\) or 3 \(red, green, blue\), got 2"),
        ("--crop-scale 1 0.5", r"--crop-scale must be two numbers, smallest and largest, got 1\.0 0\.5"),
        ("--crop-scale 0 1", r"--crop-scale must be in \(0, 1\]"),
        ("--crop-ratio 1", "--crop-ratio must be two numbers"),
    ],
)
def test_what_cannot_be_done_to_images(words: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse(["--data", "/d", *words.split()])


def test_pretrained_of_a_network_without_trained_weights_is_named_as_typed() -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(
        ValueError, match=r"^--pretrained: there are no pretrained weights for timm/coatnet_0_224: pass a file"
    ):
        parse(["-a", "timm/coatnet_0_224", "--pretrained", "--data", "d"])
    assert parse(["-a", "timm/resnet18", "--pretrained", "--data", "d"]).run.network.weights == "DEFAULT"
