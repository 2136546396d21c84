import dataclasses
import io
import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from rich.table import Table
from torch import nn

from inq_ray.models.layers import describe
from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.flags.command import program
from inq_ray.training.report import console as console_module
from inq_ray.training.report import screen as screen_module
from inq_ray.training.report.console import Console
from inq_ray.training.report.events import Progress, Row, Started, Waiting
from inq_ray.training.report.plan import Plan, PlannedPhase
from tests.clock import Clock

CONFIG = default_recipe("digits_cnn", 5)
STARTED = Started(
    arch="digits_cnn", num_parameters=25_978, num_quantized=25_744, num_train=1297, num_validation=500, world_size=2,
    device="cpu", precision="float32",
)  # fmt: skip
PROGRESS = Progress(
    stage=2, num_stages=4, portion=0.75, epoch=1, epochs=3, step=7, steps=20, loss=0.1234, images_per_second=4321.0,
    data_share=0.062, remaining_seconds=3723.0,
)  # fmt: skip
ROW = Row(
    stage=2, portion=0.75, epoch=1, top1=97.53, top5=99.9, loss=0.5, validation_seconds=1.0, lr=0.1, train_loss=0.4321,
    train_top1=98.0, train_seconds=2.0, data_seconds=0.5, network_seconds=0.1, images_per_second=1234.0,
    num_bad_images=3,
)  # fmt: skip
SUMMARY: dict[str, Any] = {
    "arch": "digits_cnn",
    "weight_bits": 5,
    "layer_bits": [],
    "mean_bits": 5.0,
    "measured_on": "test set",
    "float_top1": 98.80,
    "images_in_memory": False,
    "num_classes": 10,
    "stages": [
        {"stage": 1, "portion": 0.5, "top1_quantized": 97.11, "top1": 98.22, "top5": 99.0},
        {"stage": 2, "portion": 1.0, "top1_quantized": 96.33, "top1": 99.04, "top5": 99.5},
    ],
    "top1": 99.04,
    "top5": 99.5,
    "digest": "ab" * 32,
    "num_bad_images": 3,
    "events": {"counts": {"resumed": 2, "workers_lost": 2}, "seconds_lost": 61.4},
    "spent": {"seconds": 100.0, "data_seconds": 25.0, "network_seconds": 1.0, "bound_by": "data"},
    "verification": {"num_tensors": 4, "num_weights": 25_744, "num_zero": 2574, "model_sha256": "cd" * 32},
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def use_terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 100) -> Terminal:
    """Makes stdout a terminal; no fixture, since pytest puts its own stdout in place after those."""
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    return out


def printed(show: Callable[[Console], None], capsys: pytest.CaptureFixture[str], config: RunConfig = CONFIG) -> str:
    show(Console(config))
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out  # no terminal, no control characters
    return out


def test_without_a_terminal_epochs_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    def show(console: Console) -> None:
        for event in (STARTED, PROGRESS, ROW):
            console.report(event)
        console.close()

    first, second, third = printed(show, capsys).splitlines()
    for part in ("25,744 of 25,978", "1,297 training", "500 validation", "2 worker(s) on cpu", "float32"):
        assert part in first
    for part in (
        "stage 2/4",
        "portion 0.75",
        "epoch 1",
        "top-1  97.53",
        "loss 0.4321",
    ):
        assert part in second
    assert "waited" not in second  # no room for it
    assert third == "3 unreadable image(s) left out so far"


def test_without_a_terminal_long_epochs_give_a_sign_of_life(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_module, "_PLAIN_PROGRESS_SECONDS", 0.0)
    line = printed(lambda console: console.report(PROGRESS), capsys)
    for part in (
        "stage 2/4",
        "epoch 1/3",
        "step 7/20",
        "loss 0.1234",
        "4,321 images/s",
        "1:02:03 left",
    ):
        assert part in line
    assert "waited" not in line  # 6 % hold nothing back


def test_rows_say_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    def show(console: Console) -> None:
        plain = {"portion": 0.5, "top1": 90.0, "top5": 99.0, "loss": 0.5, "validation_seconds": 1.0}
        console.report(Row(stage=0, epoch=0, **{**plain, "portion": 0.0}))
        console.report(Row(stage=1, epoch=0, num_bn_images=1024, **plain))
        console.report(Row(stage=0, epoch=3, **{**plain, "portion": 0.0}))

    given, quantized, trained = printed(show, capsys).splitlines()
    assert "float" in given
    assert "as given" in given
    assert "stage 1/4" in quantized
    assert "quantized" in quantized
    assert "BatchNorm: 1,024 images" in quantized
    assert "epoch 3" in trained


def test_long_lines_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    folder = "/" + "very-long-name/" * 20
    out = printed(lambda console: console.show_summary(SUMMARY, folder), capsys)
    assert folder in out


def test_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    config = CONFIG.replace(data={"data": "/data/[red]x[/red]"})
    assert "/data/[red]x[/red]" in printed(lambda console: console.start(), capsys, config)


def test_brackets_in_tables_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("[a]")
    table.add_row("layer[ab].*=4 [/] :smile:")
    screen_module.Screen().show_table(table)
    out = capsys.readouterr().out
    assert "[a]" in out
    assert "layer[ab].*=4 [/] :smile:" in out


def test_the_table_of_stages_has_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(lambda console: console.show_summary(SUMMARY, "/runs/a"), capsys)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if "│" in line]
    assert rows == [
        ["float", "0", "", "98.80", ""],
        ["1", "0.5", "97.11", "98.22", "-0.58"],
        ["2", "1", "96.33", "99.04", "+0.24"],
    ]
    for part in (
        "digits_cnn at 5 bits",
        "test set",
        "25,744 weights in 4 tensors",
        "10.0 % zeros",
        "ab" * 32,
        "/runs/a",
        "speed     bottleneck: data loading (25 % of the time); faster with more --loader-workers",
        "3 unreadable image(s)",
        "events    resumed 2x, workers lost 2x; 0:01:01 lost, listed in events.jsonl",
    ):
        assert part in out
    assert re.search(rf"next +{re.escape(shlex.join(program('quantize')))} ", out)


def test_accuracy_that_rises_by_far_over_float_is_doubted(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(lambda console: console.show_summary(SUMMARY, "/runs/a"), capsys)
    assert "warning" not in out
    out = printed(lambda console: console.show_summary({**SUMMARY, "float_top1": 62.22}, "/runs/a"), capsys)
    assert "warning   +36.82 points against float" in out
    assert "--mean" in out


def test_plain_training_ends_with_how_to_quantize(capsys: pytest.CaptureFixture[str]) -> None:
    summary = {**SUMMARY, "stages": [], "weight_bits": None}
    out = printed(lambda console: console.show_summary(summary, "/runs/a"), capsys)
    assert "top-1 99.04 %, top-5 99.50 %" in out
    assert "│" not in out
    assert "--weights /runs/a/model.safetensors" in out


def test_the_next_command_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    config = CONFIG.replace(data={"data": "/data/two words"}, quantization={"weight_bits": 3})
    out = printed(lambda console: console.show_summary(SUMMARY, "/runs/my run"), capsys, config)
    command = next(line for line in out.splitlines() if line.startswith("next"))
    words = shlex.split(command)[1:]
    assert words == [
        *program("evaluate"), "--data", "/data/two words", "--arch", "digits_cnn", "--weights",
        "/runs/my run/model.safetensors",
    ]  # fmt: skip


def test_the_plan_has_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(
        phases=(
            PlannedPhase(stage=0, portion=0.0, num_frozen=0, epochs=12, lr=0.1, steps=240),
            PlannedPhase(stage=1, portion=0.5, num_frozen=12_872, epochs=3, lr=0.004, steps=6000),
        ),
        num_parameters=25_978,
        num_quantized=25_744,
        num_tensors=4,
        num_train=1297,
        num_validation=500,
        num_batchnorm=1280,
        seconds_per_step=0.5,
    )
    layers = describe(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 5)
    out = printed(lambda console: console.show_plan(plan, layers), capsys)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if "│" in line]
    assert rows == [
        ["0.weight", "Conv2d", "4x3x3x3", "108", "5"],
        ["0.bias", "Conv2d", "4", "4", "float (bias)"],
        ["1.weight", "BatchNorm2d", "4", "4", "float (normalization)"],
        ["1.bias", "BatchNorm2d", "4", "4", "float (normalization)"],
        ["1 tensor", "", "", "108", "5 bits"],
        ["1 tensor", "", "", "4", "float (bias)"],
        ["2 tensors", "", "", "8", "float (normalization)"],
        ["float", "0", "0", "12", "0.1", "240"],
        ["1/4", "0.5", "12,872", "3", "0.004", "6,000"],
    ]
    assert "BatchNorm statistics are estimated at the end from 1,280 training images" in out
    assert "0:52:00" in out
    assert "4 tensors" in out


def test_a_terminal_has_a_live_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    console = Console(CONFIG)
    console.report(STARTED)
    console.report(PROGRESS)
    console.report(ROW)
    console.close()
    console.close()
    out = terminal.getvalue()
    assert "\x1b[?25l" in out  # the cursor is hidden while the line lives
    assert out.rindex("\x1b[?25h") > out.rindex("\x1b[?25l")  # and shown again
    assert "step 7/20" in out
    assert "97.53" in out


def test_a_terminal_gets_the_same_table(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    Console(CONFIG).show_summary(SUMMARY, "/runs/a")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    for part in ("98.80", "97.11", "99.04", "+0.24", "/runs/a"):
        assert part in text


LARGE = dataclasses.replace(
    PROGRESS, stage=10, num_stages=10, portion=0.975, epoch=119, epochs=120, step=1_234_567, steps=5_000_000,
    loss=12.3456, images_per_second=1_234_567.0, data_share=0.31, remaining_seconds=1e6,
)  # fmt: skip
LARGE_ROW = dataclasses.replace(
    ROW, stage=10, portion=0.975, epoch=119, images_per_second=1_234_567.0, train_loss=12.3456, num_skipped_steps=7
)


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_lines_about_progress_fit_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch, columns)
    console = Console(CONFIG.replace(output={"print_freq": 1}))
    for event in (LARGE, PROGRESS):
        console.report(dataclasses.replace(event, is_printed=True))
    for row in (LARGE_ROW, ROW):
        console.report(row)
    console.close()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert max(map(len, lines)) <= columns
    assert not any("…" in line for line in lines)
    for part in ("stage 10/10", "left", "epoch 119", "top-1  97.53"):
        assert part in text
    assert ("1,234,567 images/s" in text) == (columns == 200)
    if columns >= 80:
        assert "stage 2/4  epoch 1/3  step 7/20  loss 0.1234  4,321 images/s  1:02:03 left" in text or columns > 80


def test_lines_about_progress_fit_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def show(console: Console) -> None:
        for event in (LARGE, PROGRESS):
            console.report(dataclasses.replace(event, is_printed=True))
        for row in (LARGE_ROW, ROW):
            console.report(row)

    lines = printed(show, capsys, CONFIG.replace(output={"print_freq": 1})).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "stage 10/10  epoch 119/120  step 1234567/5000000  loss 12.3456  11 d 13:46 left"


def test_large_waits_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch, 80)
    console = Console(CONFIG)
    console.report(dataclasses.replace(PROGRESS, data_share=0.31, is_printed=True))
    console.close()
    assert "stage 2/4  epoch 1/3  step 7/20  loss 0.1234  1:02:03 left  waited 31 % for data" in terminal.getvalue()
    terminal = use_terminal(monkeypatch, 120)
    Console(CONFIG).report(ROW)
    assert terminal.getvalue().splitlines()[0].endswith("1,234 images/s  waited 25 % for data")


@pytest.mark.parametrize("columns", [60, 80])
def test_results_are_wrapped_between_words_and_paths_stay_whole(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch, columns)
    folder = "/" + "very-long-name/" * 8 + "run"
    console = Console(CONFIG.replace(data={"data": "/data/" + "a" * 90}))
    console.start()
    console.report(STARTED)
    console.show_summary(SUMMARY, folder)
    console.close()
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue()).splitlines()
    assert folder in lines  # alone on its line
    long = [line for line in lines if len(line) > columns]
    assert all("/" in line or line == SUMMARY["digest"] for line in long), long
    assert ("digest" in lines) == (columns == 60)
    wrapped = lines[next(index for index, line in enumerate(lines) if line.startswith("verified")) + 1]
    assert wrapped.startswith(" " * 10)


def test_what_is_waited_for_is_shown_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = use_terminal(monkeypatch, 80), Clock()
    monkeypatch.setattr(screen_module, "time", clock)
    console = Console(CONFIG)
    console.report(Waiting("starting Ray on this machine"))
    clock.now += 34
    console._screen._live.refresh()  # type: ignore[union-attr]
    assert re.search(r"starting Ray on this machine: 0:00:34, since \d\d:\d\d:\d\d", terminal.getvalue())
    console.report(ROW)
    shown = len(terminal.getvalue())
    console._screen._live.refresh()  # type: ignore[union-attr]
    assert "starting Ray" not in terminal.getvalue()[shown:]
    console.close()


def test_without_a_terminal_a_long_wait_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen_module, "_STILL_WAITING_SECONDS", 0.01)
    console = Console(CONFIG)
    console.report(Waiting("starting 2 worker(s)"))
    out = ""
    while out.count("starting 2 worker(s): 0:00:00, since ") < 2:
        out += capsys.readouterr().out
    console.close()
