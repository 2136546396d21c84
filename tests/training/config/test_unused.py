import dataclasses

import pytest

from inq_ray.data.source import open_source
from inq_ray.training.config.unused import doubtful_options, unused_options
from inq_ray.training.flags.parse import parse

DIGITS = open_source("digits").info
STREAMED = dataclasses.replace(DIGITS, is_streamed=True, is_grouped=True)


def unused(flags: str, *, is_streamed: bool = False) -> list[str]:
    command = parse(flags.split())
    return unused_options(
        command.given,
        command.run,
        STREAMED if is_streamed else DIGITS,
        is_evaluation=command.action.evaluate,
    )


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--epochs 2 --epochs-each 1 2 3 4", "--epochs has no effect with --epochs-each"),
        ("--epochs=2 --epochs_total 8", "--epochs has no effect with --epochs-total"),
        ("--lr 0.1 --lr-each 0.1 0.1 0.1 0.1", "--lr has no effect with --lr-each"),
        ("--learning-rate 0.1 --lr-each 1 1 1 1", "--lr has no effect with --lr-each"),
        ("--lr-gamma 0.5", "--lr-gamma has no effect without --lr-schedule step"),
        ("--distill-labels 0.5", "--distill-labels has no effect without --distill"),
        ("--teacher-arch cifar_resnet32", "--teacher-arch has no effect without --distill"),
        ("--weights w.pth --float-lr 0.1", "--float-lr has no effect without --float-epochs"),
        (
            "--weights w.pth --distill --label-smoothing 0.1",
            "--label-smoothing has no effect with --distill, which uses no labels; add --distill-labels",
        ),
        (
            "--distill --label-smoothing 0.1 --float-epochs 1",
            (
                "--label-smoothing has no effect in stages with --distill, which uses no labels there; "
                "add --distill-labels"
            ),
        ),
        ("--follow-links", "--follow-links has no effect: these data are not files in a folder"),
        ("--num-workers 1 --sync-batchnorm --use-gpu", "--sync-batchnorm has no effect with one worker"),
        ("--shuffle-buffer 100", "--shuffle-buffer has no effect: only streamed Parquet is shuffled in a buffer"),
        ("--weight-bits 2 --levels full", "--levels has no effect at 2 bits, where both have one power of two"),
        (
            "--weight-bits 2 --layer-bits a=2 --levels full",
            "--levels has no effect at 2 bits, where both have one power of two",
        ),
        ("--plain --layer-bits classifier=3", "--layer-bits has no effect with --plain: nothing is quantized"),
        ("--plain --weight-bits 3", "--weight-bits has no effect with --plain: nothing is quantized"),
        (
            "--evaluate --weights w.pth --weight-bits 3",
            "--weight-bits has no effect with --evaluate: the network is measured without training",
        ),
        (
            "--warmup-epochs 100",
            "--warmup-epochs keeps the learning rate below --lr: it rises for 100 epochs, but the longest stage has 12",
        ),
    ],
)
def test_an_option_without_effect_is_reported(flags: str, told: str) -> None:
    assert unused(flags) == [told]


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--epochs 2 --lr 0.1 --warmup-epochs 2",
        "--lr-gamma 0.5 --lr-schedule step",
        "--float-lr 0.1 --float-epochs 2",
        "--distill --distill-labels 0.5 --distill-temperature 2 --label-smoothing 0.1",
        "--recipe cifar_resnet20-3bit --data d --weights w.pth --epochs 3 --distill-labels 0.1",
        "--plain --epochs 3 --lr 0.1",
        "--weight-bits 3 --iterative-steps 0.5 1 --epochs-each 1 2",
        "--evaluate --weights w.pth --crop-size 32 --holdout 5 --seed 3 --limit-batches 2",
    ],
)
def test_options_with_an_effect_are_not(flags: str) -> None:
    assert unused(flags, is_streamed=True) == []


def test_where_images_are_streamed_the_buffer_has_an_effect() -> None:
    assert unused("--shuffle-buffer 100", is_streamed=True) == []


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--lr 0.1 --float-lr 10", []),
        ("--lr 1000", ["--lr 1000: training diverges at this rate; usual rates are 0.001 to 0.1"]),
        ("--lr-each 0.1 1 11 1", ["--lr-each 11: training diverges at this rate; usual rates are 0.001 to 0.1"]),
        ("--float-lr 1e308", ["--float-lr 1e+308: training diverges at this rate; usual rates are 0.001 to 0.1"]),
        ("--plain --float-lr 1e308", []),
        ("--lr 1e-30", ["--lr 1e-30: this rate is too small to train; usual rates are 0.001 to 0.1"]),
    ],
)
def test_rates_with_which_training_is_lost_are_said(flags: str, told: list[str]) -> None:
    assert doubtful_options(parse(flags.split()).run) == told


def test_half_a_normalization_is_doubted() -> None:
    for flags, given, other in (("--mean 0.5", "--mean", "--std"), ("--std 0.2", "--std", "--mean")):
        (line,) = doubtful_options(parse(f"--data cifar10 {flags}".split()).run)
        assert line.startswith(f"{given} without {other}: ")
    assert doubtful_options(parse(["--data", "cifar10", "--mean", "0.5", "--std", "0.2"]).run) == []
