"""Runs by --gradient-communication: the same bits on two ranks, and what is measured is kept."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.gradients import LiveGradients
from inq_ray.training.config import RunConfig
from inq_ray.training.loop import gradients
from inq_ray.training.loop.gradients import GradientTimes, GradientTrial
from inq_ray.training.report.events import Note
from tests.ranks import run_ranks
from tests.training.runs import StoppedError, needs_digits, run_here, stopped_after, tiny_config

Stop = tuple[int, int, int]


class Start(NamedTuple):
    """One start of a run on ranks.

    Attributes:
        config: Configuration of the run.
        stop: (stage, epoch, step) after which it is stopped.
        seconds: Times that are "measured" with all gradients and with those of live weights; None = the real ones.
    """

    config: RunConfig
    stop: Stop | None = None
    seconds: tuple[float, float] | None = None


def configured(storage: Path, name: str, size: int, communication: str) -> RunConfig:
    """Six steps an epoch, three stages, a checkpoint after every second step; one tensor is frozen as a whole."""
    training = {"gradient_communication": communication, "batch_size": 200, "accumulate": 2, "clip_grad_norm": 1.0}
    config = tiny_config(storage, name, training={**training, "float_epochs": 1, "epochs": 1})
    return config.replace(
        quantization={"iterative_steps": (0.5, 0.875, 1.0)},
        cluster={"num_workers": size},
        output={"checkpoint_every": "2"},
    )


def start_all(starts: list[Start]) -> list[tuple[str | None, list[str]]]:
    """Return the digest, None if it was stopped, and notes about gradients of each start."""
    results: list[tuple[str | None, list[str]]] = []
    for start in starts:
        with pytest.MonkeyPatch.context() as patch:
            if start.seconds is not None:
                patch.setattr(gradients, "_now", measuring(start.seconds))
            try:
                with stopped_after(start.stop):
                    finished = run_here(start.config)
            except StoppedError:
                results.append((None, []))
                continue
        notes = [event.text for event in finished.told.events if isinstance(event, Note)]
        results.append((finished.summary["digest"], [note for note in notes if "gradients" in note]))
    return results


def measuring(seconds: tuple[float, float]) -> Callable[[torch.device], float]:
    """Return a clock by which steps take these times in turns."""
    times = itertools.accumulate(itertools.chain.from_iterable((0.0, each) for each in itertools.cycle(seconds)))
    return lambda _: next(times)


@needs_digits
@pytest.mark.system
def test_on_two_ranks_a_run_has_the_same_bits(tmp_path: Path) -> None:
    names = ("dense", "live", "auto")
    starts = [Start(configured(tmp_path, name, 2, name)) for name in names]
    first, second = run_ranks(start_all, 2, starts)
    assert [digest for digest, _ in first] == [digest for digest, _ in second] == [first[0][0]] * 3
    assert [notes for _, notes in first[:2]] == [[], []]
    assert [note.partition(":")[0] for note in first[2][1]] == ["stage 1", "stage 2", "stage 3"]
    assert second[2][1] == [], "rank 0 reports"


@needs_digits
@pytest.mark.system
def test_a_killed_run_keeps_what_was_chosen(tmp_path: Path) -> None:
    """On three ranks, where bits depend on it; the run is killed after the trial of stage 1 and within that of 2."""
    live_is_faster, dense_is_faster = (2.0, 1.0), (1.0, 2.0)

    def auto(name: str) -> RunConfig:
        return configured(tmp_path, name, 3, "auto").replace(training={"epochs": 2})

    killed = auto("killed")
    starts = [
        Start(auto("live"), None, live_is_faster),
        Start(auto("dense"), None, dense_is_faster),
        Start(killed, (1, 2, 3), live_is_faster),
        Start(killed, (2, 1, 5), dense_is_faster),  # stage 1 continues with live
        Start(killed, None, live_is_faster),  # from the fourth step of the trial of stage 2
    ]
    results = run_ranks(start_all, 3, starts)
    digests = [[digest for digest, _ in of_rank] for of_rank in results]
    assert digests[1:] == digests[:-1]
    live, dense, *stopped, resumed = digests[0]
    assert stopped == [None, None]
    assert resumed == live
    assert resumed != dense
    assert [note[:48] for note in results[0][-1][1]] == [
        f"stage {stage}: workers exchange gradients of live weig" for stage in (2, 3)
    ]


def test_live_is_chosen_only_if_it_was_faster_each_time() -> None:
    faster = GradientTimes(dense_seconds=(2.0, 1.0), live_seconds=(1.0, 0.5))
    at_times = GradientTimes(dense_seconds=(2.0, 1.0), live_seconds=(1.0, 1.0))
    unknown = GradientTimes(dense_seconds=(), live_seconds=())
    assert [each.choice for each in (faster, at_times, unknown)] == ["live", "dense", "dense"]
    assert str(faster) == (
        "workers exchange gradients of live weights only: passes with those of live weights only take 500 ms, "
        "with all 1000 ms"
    )
    assert str(at_times).startswith("workers exchange gradients of all weights: passes with those of live weights only")
    assert str(unknown) == "workers exchange gradients of all weights: the run was interrupted while it measured"


@pytest.mark.parametrize(("start", "sends_live"), [(0, [0, 1, 0, 1, 0, 1]), (3, [1, 0, 1]), (5, [1]), (6, [])])
def test_a_step_sends_what_its_number_says_wherever_the_trial_continues(
    monkeypatch: pytest.MonkeyPatch, start: int, sends_live: list[int]
) -> None:
    monkeypatch.setattr(gradients, "_now", measuring((2.0, 1.0) if start % 2 == 0 else (1.0, 2.0)))
    live = LiveGradients(SGD([torch.zeros(2)], lr=0.1))
    chosen: list[GradientTimes] = []
    trial = GradientTrial(live, torch.device("cpu"), start, chosen.append)
    sent = []
    for _ in sends_live:
        assert not chosen
        with trial.step():
            sent.append(int(live.is_on))
    num_pairs = len(sends_live) // 2
    if sends_live:
        assert chosen == [GradientTimes(dense_seconds=(2.0,) * num_pairs, live_seconds=(1.0,) * num_pairs)]
        assert live.is_on == (num_pairs > 0)
    assert sent == sends_live
    before = live.is_on
    with trial.step():
        assert live.is_on == before
    assert len(chosen) <= 1
