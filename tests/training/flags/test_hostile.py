"""Command lines and configurations that nobody would write: each is read, or ends in one line."""

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inq_ray.files.shown import has_control
from inq_ray.training.checkpoint.resume import look_at
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import declared
from inq_ray.training.config.output import AUTO, NEVER
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.config.unused import doubtful_options
from inq_ray.training.flags.parse import parse
from inq_ray.training.flags.paths import with_absolute_paths
from inq_ray.training.flags.read import read_flags
from inq_ray.training.start import check_storage

WORDS = (
    "", " ", "-", "--", "-1", "0", "1", "2", "1e400", "-1e-5", "nan", "inf", "None", "true", "five", "auto", "0.5,1",
    "10**9", "9" * 25, "9" * 5000, "1_000", "٣", "0x10", "1" * 400, "a" * 5000, "a/" * 3000, "../" * 2000, "~nobody/x",
    "/proc/x", "/dev/null", "/dev/null/x", "s3:/x", "s3://", "s3://k:s@b/x", "http://x/y", "file://", "a\x1b[31mb",
    "a\nb", "a\rb", "a\x00b", "a\u2028b", "\udcff\udcfe", "💥", "a:b", "x.py:Net", "10 minutes", "1h2m", "2..1",
    "1..99", "[1, 2]", "{}", "%s%n", "$(id)", "--lr", "-x", "--help=1", "x" * 256,
)  # fmt: skip
FLAGS = ("--nonsense", "--" + "x" * 3000, "--l\x1b[31mr", "--LR", "-lr", "--lr=", "--no-lr", "--no-plain",
         "--pretrained", "--gpu", "--quantize", "---", "--data.data", "extra", "quantize")  # fmt: skip
VALUES = (
    None, True, -1, 0, 1, 2**62, 10**30, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "9" * 5000,
    "a\x1b[31m\nb", "\udcff", "a\x00", [], {}, [[]], [1], [0.5, 1.0], ["x"] * 1000, [1] * 1000, {"a": {"b": []}},
)  # fmt: skip


def one_line_of(use: Callable[[], None], what: object) -> bool:
    """Return whether it ends in a message, which must be one of few characters that a terminal can show."""
    try:
        use()
    except ValueError as error:
        line = str(error)
        assert line, what
        assert not has_control(line), (what, line)
        assert len(line) <= 300, (what, len(line), line)
        return True
    return False


def dry(config: RunConfig, storage: Path) -> None:
    """Check what can be checked without data, network and Ray."""
    config = with_absolute_paths(config)
    config = config.replace(output={"name": config.output.name or "hostile"})
    if config.output.storage_path == RunConfig().output.storage_path:
        config = config.replace(output={"storage_path": str(storage)})
    check_storage(config)
    if config.output.resume not in (AUTO, NEVER) and "://" not in config.output.resume:
        look_at(config.output.resume)
    doubtful_options(config)
    sum(config.phase_epochs)


def command_lines(count: int) -> Iterator[list[str]]:
    draw = random.Random(24)
    options = list(declared(RunConfig).values())
    for _ in range(count):
        words: list[str] = []
        for _ in range(draw.choice((1, 1, 2, 4))):
            option = draw.choice(options)
            flag = draw.choice(FLAGS) if draw.random() < 0.15 else draw.choice((option.flag, *option.option.aliases))
            values = [draw.choice(WORDS) for _ in range(draw.choice((0, 1, 1, 1, 1, 2, 3)))]
            words += [f"{flag}={values[0]}", *values[1:]] if values and draw.random() < 0.2 else [flag, *values]
        yield words


def test_hostile_command_lines_are_read_or_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    num_refused = 0
    for words in command_lines(200):
        num_refused += one_line_of(lambda words=words: dry(parse(words).run, tmp_path), words)  # type: ignore[misc]
    assert num_refused > 100
    assert capsys.readouterr() == ("", "")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("value", WORDS)
def test_every_word_as_the_only_one(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in ([value], ["--data", value], ["--name", value], ["--epochs", value], ["--config", value]):
        if value != "--help=1":
            one_line_of(lambda words=words: dry(parse(words).run, tmp_path), words)  # type: ignore[misc]


def test_mutated_configurations_are_read_or_end_in_one_line(tmp_path: Path) -> None:
    draw = random.Random(24)
    good = json.loads(default_recipe("resnet18", 4).replace(output={"name": "x"}).to_json())
    places = [(section, name) for section, inner in good.items() if isinstance(inner, dict) for name in inner]
    path, num_refused = tmp_path / "config.json", 0
    for number in range(400):
        values = copy.deepcopy(good)
        for section, name in draw.sample(places, draw.choice((1, 1, 1, 3))):
            kind: Any = draw.random()
            if kind < 0.1:
                del values[section][name]
            elif kind < 0.15:
                values[section] = draw.choice(VALUES)
                break
            elif kind < 0.2:
                values[section][draw.choice(("a\x1b[31m", "x" * 3000, "", "LR"))] = 1
            else:
                values[section][name] = draw.choice(VALUES)
        text = json.dumps(values)
        if number % 20 == 0:
            cut = draw.randrange(len(text))
            text = text[:cut] + draw.choice(("", "[" * 100_000, "\x00", "9" * 5000)) + text[cut + 1 :]
        path.write_text(text)
        num_refused += one_line_of(lambda: dry(parse(["--config", str(path)]).run, tmp_path), values)
    assert num_refused > 200


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--weight-bits five", "--weight-bits takes a whole number from 2 to 8, got 'five'"),
        ("--epochs x", "--epochs takes a whole number from 0 to 1000000, got 'x'"),
        ("--epochs 1000000000000000000", "--epochs must be at most 1000000, got 1000000000000000000"),
        ("--seed x", "--seed takes a whole number in [0, 9223372036854775808), got 'x'"),
        ("--lr x", "--lr takes a number above 0, got 'x'"),
        ("-b x", "-b (--batch-size) takes a whole number from 1 to 1000000000, got 'x'"),
        ("--random-erasing much", "--random-erasing takes a number from 0 to 1, got 'much'"),
        ("--lr", "--lr needs a value: a number above 0"),
        ("--data", "--data needs a value: a path"),
        ("--lr-schedule", "--lr-schedule needs a value: one of cosine, step, constant"),
        ("--lr-schedule cos", "--lr-schedule must be one of cosine, step, constant, got 'cos'"),
        ("--checkpoint-every 10 minutes", "--checkpoint-every takes one word such as 10m, got '10 minutes'"),
        ("--placement-timeout 10 m", "--placement-timeout takes one word such as 10m, got '10 m'"),
        ("--checkpoint-every", "--checkpoint-every needs a value: a time such as 30s, 10m or 2h"),
        ("--plain true", "--plain takes no value, got 'true': leave the value out, or use --no-plain to turn it off"),
        ("--no-plain=1", "--no-plain takes no value, got '1': leave the value out"),
        ("--dry-run x", "--dry-run takes no value, got 'x': leave the value out, or use --no-dry-run to turn it off"),
        ("--pretrained yes", "--pretrained takes no value, got 'yes': leave the value out"),
        (
            "--pretrained",
            (
                "--pretrained: there are no pretrained weights for digits_cnn: pass a file with --weights, or train "
                "the network first with --float-epochs N"
            ),
        ),
        (
            "quantize --data digits",
            (
                "'quantize' follows no flag: all arguments are flags; name a folder of images with --data DIR "
                "(--help lists the flags)"
            ),
        ),
        (
            "--arch resnet18 /data/imagenet",
            (
                "--arch takes one value, got 'resnet18' and '/data/imagenet': put each value after its own flag, such "
                "as --data DIR for a folder of images"
            ),
        ),
    ],
)  # fmt: skip
def test_what_is_said_of_a_word(flags: str, line: str) -> None:
    with pytest.raises(ValueError, match=re.escape(line)) as caught:
        parse(flags.split())
    assert str(caught.value) == line


def test_numbers_below_zero_are_values() -> None:
    options = declared(RunConfig).values()
    typed = read_flags(["--mean", "-0.5", "-.1", "0"], options, program="", what="", defaults=dict)
    assert typed == {"data.mean": (-0.5, -0.1, 0)}
