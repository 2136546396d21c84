"""What came out, against counting; and what is shown of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.sweep.console import FromTrial, SweepConsole
from inq_ray.sweep.space.space import BITS, LR, SCHEDULE, configured
from inq_ray.sweep.trials.ranking import best_of, effects, pareto, ranked, savings
from inq_ray.sweep.trials.report import Begun, Done, End, Ended, Failed, Stored, TrialRetryable, ends_of
from inq_ray.sweep.trials.trial import Trial
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.report.events import Note, Progress, Row, Waiting

pytestmark = pytest.mark.system

SCHEDULES = [(0.5, 0.75, 1.0), (0.5, 1.0)]


def trial_of(number: int, bits: int, top1: float | None, *, status: Any = "done", schedule: int = 0) -> Trial:
    point = {SCHEDULE: SCHEDULES[schedule], BITS: bits, LR: 0.01 * (number + 1)}
    config = configured(default_recipe("digits_cnn", 5), point)
    trial = Trial(name=f"t{number + 1:03}", number=number, point=point, config=config, keys={}, status=status)
    trial.top1 = top1
    trial.ends = [End(stage=0, portion=0.0, top1=90.0, seconds=2.0, how="reused"),
                  End(stage=1, portion=0.5, top1=80.0, seconds=3.0, how="trained")]  # fmt: skip
    return trial


TRIALS = st.lists(
    st.tuples(st.integers(2, 5), st.one_of(st.none(), st.integers(0, 20).map(float)), st.integers(0, 1)), max_size=8
).map(
    lambda found: [
        trial_of(number, bits, top1, status="done" if top1 is not None else "stopped", schedule=schedule)
        for number, (bits, top1, schedule) in enumerate(found)
    ]
)


@given(TRIALS)
def test_no_trial_beats_the_best_and_those_without_a_result_come_last(trials: list[Trial]) -> None:
    best = best_of(trials)
    done = [trial.top1 for trial in trials if trial.top1 is not None]
    assert (best is None) == (not done)
    if best is not None:
        assert best.top1 == max(done)
    order = [trial.top1 for trial in ranked(trials)]
    assert order == [*sorted(done, reverse=True), *[None] * (len(trials) - len(done))]


@given(TRIALS)
def test_the_front_is_what_no_other_beats(trials: list[Trial]) -> None:
    front = pareto(trials)
    done = [(trial.bits, trial.top1) for trial in trials if trial.top1 is not None]
    beaten = {
        (bits, top1)
        for bits, top1 in done
        for other_bits, other in done
        if (other_bits, other) != (bits, top1) and other_bits <= bits and other >= top1
    }
    assert sorted({(trial.bits, trial.top1) for trial in front}) == sorted(set(done) - beaten)
    assert len(front) == len({(trial.bits, trial.top1) for trial in front})


@given(TRIALS)
def test_effects_are_means_over_trials(trials: list[Trial]) -> None:
    done = [trial for trial in trials if trial.top1 is not None]
    for effect in effects(trials):
        if effect.parameter == "weight_bits":
            values = [trial.top1 for trial in done if trial.bits == int(effect.value)]
            assert effect.num_trials == len(values)
            assert effect.mean == pytest.approx(sum(v for v in values if v is not None) / len(values))
            assert effect.best == max(v for v in values if v is not None)


def test_many_numbers_become_three_ranges() -> None:
    trials = [trial_of(number, 5, float(number)) for number in range(9)]
    found = [effect for effect in effects(trials) if effect.parameter == "lr"]
    assert [(effect.value, effect.num_trials, effect.mean) for effect in found] == [
        ("0.07 to 0.09", 3, 7.0), ("0.04 to 0.06", 3, 4.0), ("0.01 to 0.03", 3, 1.0)
    ]  # fmt: skip


def test_values_without_an_order_have_effects_too() -> None:
    trials = [trial_of(number, 5, float(number)) for number in range(4)]
    for trial in trials:
        trial.point = {**trial.point, "training.clip_grad_norm": None if trial.number % 2 else 1.0}
    found = [effect for effect in effects(trials) if effect.parameter == "clip_grad_norm"]
    assert [(effect.value, effect.mean) for effect in found] == [("None", 2.0), ("1", 1.0)]


def test_savings_add_up() -> None:
    saved = savings([trial_of(0, 5, 90.0), trial_of(1, 5, None)])
    assert (saved.num_trained, saved.num_reused, saved.trained_seconds, saved.saved_seconds) == (2, 2, 6.0, 4.0)


def test_ends_are_found_in_metrics() -> None:
    config = default_recipe("digits_cnn", 5).replace(training={"float_epochs": 1, "epochs": 2})

    def row(stage: int, epoch: int, top1: float) -> Row:
        return Row(stage=stage, portion=0.5, epoch=epoch, top1=top1, top5=0, loss=0, validation_seconds=1,
                   train_seconds=2 if epoch else None)  # fmt: skip

    rows = [row(0, 1, 90), row(1, 0, 50), row(1, 1, 60), row(1, 1, 61), row(1, 2, 70), row(2, 0, 1), row(2, 1, 2)]
    ends = ends_of(config, rows, "trained")
    assert [(end.stage, end.top1, end.seconds, end.how) for end in ends] == [
        (0, 90, 3, "trained"), (1, 70, 7, "trained")
    ]  # fmt: skip
    given_weights = config.replace(training={"float_epochs": 0})
    assert ends_of(given_weights, [row(0, 0, 90)], "trained")[0].how == "given"


def test_what_a_person_sees(capsys: pytest.CaptureFixture[str]) -> None:
    console = SweepConsole()
    trials = [trial_of(0, 5, 97.25), trial_of(1, 3, 96.5, schedule=1), trial_of(2, 3, None, status="stopped")]
    trials[2].reason = "80.00 % at portion 0.5 (asha)"
    console.started(trials[0], trials)
    reports = [
        Begun(ends=tuple(trials[0].ends), damaged=("key",)), Ended(trials[0].ends[1]), Stored("k", "the disk is full"),
        Failed("it fails"), TrialRetryable("it stumbles"), Done(top1=97.25, digest="0123456789abcdef0"),
    ]  # fmt: skip
    for report in reports:
        console.told(trials[0], report)
    console.show_result(trials, Accuracy(num_samples=500, num_top1=480, num_top5=500, loss=0.1), 10, 61.0)
    console.show_best(trials[0], "python x", "best.json")
    out = capsys.readouterr().out
    for words in (
        "t001  starts    ▄▆█ 0.5,0.75,1  weight_bits 5  lr 0.01",
        "1 damaged stage end(s) ignored; reuses    1 stage(s), to portion 0: saves 0:00:02",
        "stage 1/3 portion 0.5    top-1  80.00",
        "is not stored: the disk is full",
        "failed    it fails",
        "done      top-1 97.25  digest 0123456789abcdef",
        "Pareto    3 bits 96.50 % (t002), 5 bits 97.25 % (t001)",
        "stages    trained 3, reused 3; time saved 0:00:06",
        "test set  top-1 96.00",
        "best      t001",
        "80.00 % at portion 0.5 (asha)",
    ):
        assert words in out, words


def test_a_terminal_sees_a_live_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    console = SweepConsole()
    trial = trial_of(0, 5, None, status="running")
    console.started(trial, [trial])
    progress = Progress(stage=2, num_stages=3, portion=0.75, epoch=1, epochs=2, step=3, steps=4, loss=0.1,
                        images_per_second=1.0, data_share=0.0, remaining_seconds=120.0)  # fmt: skip
    console.report(FromTrial("t001", Waiting("starting 1 worker(s)")))
    console._screen._live.refresh()  # type: ignore[union-attr]
    assert "starting 1" in capsys.readouterr().out  # the rest is below, in its cell
    console.report(FromTrial("t001", progress))
    console.report(FromTrial("t001", Note("a note")))
    console.close()
    out = capsys.readouterr().out
    assert "a note" in out
    assert "2/3" in out
    assert "0:02:00" in out
