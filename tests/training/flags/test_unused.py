import pytest

from inq_ray.training.flags.parse import parse
from inq_ray.training.flags.unused import idle_flags


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--epochs 2 --epochs-each 1 2 3 4", "--epochs plays no part: --epochs-each says how long each stage is"),
        ("--epochs=2 --epochs_total 8", "--epochs plays no part: --epochs-total says how long each stage is"),
        ("--lr 0.1 --lr-each 0.1 0.1 0.1 0.1", "--lr plays no part: --lr-each says the rate of each stage"),
        ("--learning-rate 0.1 --lr-each 1 1 1 1", "--lr plays no part: --lr-each says the rate of each stage"),
        ("--lr-gamma 0.5", "--lr-gamma plays no part: add --lr-schedule step"),
        ("--distill-labels 0.5", "--distill-labels plays no part: add --distill"),
        ("--plain --weight-bits 3", "--weight-bits plays no part: --plain quantizes nothing"),
        (
            "--warmup-epochs 100",
            "--warmup-epochs keeps all rates below --lr: the rate rises for 100 epochs, the longest stage has 12",
        ),
    ],
)
def test_a_flag_that_plays_no_part_is_told(flags: str, told: str) -> None:
    assert idle_flags(flags.split(), parse(flags.split()).run) == [told]


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--epochs 2 --lr 0.1 --warmup-epochs 2",
        "--lr-gamma 0.5 --lr-schedule step",
        "--distill --distill-labels 0.5 --distill-temperature 2",
        "--recipe cifar_resnet20-3bit --data d --weights w.pth --epochs 3 --distill-labels 0.1",
        "--plain --epochs 3 --lr 0.1",
        "--weight-bits 3 --iterative-steps 0.5 1 --epochs-each 1 2",
    ],
)
def test_flags_that_play_one_are_not(flags: str) -> None:
    assert idle_flags(flags.split(), parse(flags.split()).run) == []
