"""How a run that ends badly is told, without a cluster."""

import contextlib
import signal
from pathlib import Path

import pytest
import ray
import ray.train
import torch
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)

from inq_ray.cluster import fit, trainer
from inq_ray.cluster.failure import RunFailedError, WorkersLostError, failure_of
from inq_ray.cluster.placement import NoRoomError
from inq_ray.training.faults import DivergedError
from inq_ray.training.recipes import default_recipe
from inq_ray.training.reporter import SilentReporter
from inq_ray.training.run_folder import RunFolder


class _FailedError(Exception):
    def __init__(self, worker_failures: dict[int, Exception]) -> None:
        super().__init__("workers failed\nwith a long trace")
        self.worker_failures = worker_failures


def _wrapped(inner: Exception) -> Exception:
    failure = RuntimeError("a trace\nof many lines")
    failure.__cause__ = inner
    return failure


def test_the_rank_that_failed_first_is_named_not_those_that_lost_touch_with_it() -> None:
    echo = RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer [127.0.0.2]:1234")
    failures = {0: _wrapped(echo), 1: _wrapped(DivergedError("epoch 1: the training loss is nan\nmore"))}
    failure = failure_of(_FailedError(failures))
    assert str(failure) == "rank 1: DivergedError: epoch 1: the training loss is nan"
    assert not isinstance(failure, WorkersLostError)
    echoed = failure_of(_FailedError({0: _wrapped(echo)}))
    assert str(echoed).startswith("rank 0: RuntimeError: [gloo")
    assert isinstance(echoed, WorkersLostError)


def test_a_process_that_died_is_said_to_have_died() -> None:
    failure = WorkerHealthCheckFailedError("A worker health check failed.", OSError("The actor died unexpectedly"))
    died = failure_of(_FailedError({1: failure}))
    assert isinstance(died, WorkersLostError)
    assert str(died) == "rank 1: OSError: The actor died unexpectedly"
    assert str(failure_of(_FailedError({}))) == "workers failed"
    assert not isinstance(failure_of(_FailedError({})), WorkersLostError)
    assert str(failure_of(_FailedError({0: ValueError()}))) == "rank 0: ValueError: no message"


@pytest.mark.parametrize(
    "error",
    [MemoryError("no more"), torch.OutOfMemoryError("CUDA out of memory"), ray.exceptions.OutOfMemoryError("4 GB")],
)
def test_memory_that_is_not_enough_is_not_tried_again(error: Exception) -> None:
    failure = failure_of(_FailedError({0: _wrapped(error)}))
    assert not isinstance(failure, WorkersLostError)
    assert "take a smaller --batch-size" in str(failure)


@pytest.mark.parametrize(
    "error", [WorkerGroupStartupTimeoutError(3), WorkerGroupStartupFailedError("one of them\nwith a trace")]
)
def test_workers_that_do_not_start_are_lost_workers(error: Exception) -> None:
    failure = failure_of(ray.train.ControllerError(error))
    assert isinstance(failure, WorkersLostError)
    assert str(failure) == str(error).splitlines()[0]
    assert not isinstance(failure_of(ray.train.ControllerError(ValueError("ours"))), WorkersLostError)


def test_lost_workers_are_replaced_as_often_as_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whether the run really goes on is tested on Ray."""
    told: list[str] = []

    class Reporter:
        def report(self, event: object) -> None:
            told.append(str(event))

    fits = []

    def lost(*_: object, num_workers: int, **__: object) -> None:
        fits.append(num_workers)
        raise WorkersLostError("rank 1: died")

    room = iter([3, 1])
    monkeypatch.setattr(trainer, "fit", lost)
    monkeypatch.setattr(trainer, "place", lambda *_, **__: next(room))
    config = default_recipe("digits_cnn", 5).replace(
        output={"storage_path": str(tmp_path), "name": "lost"}, cluster={"max_failures": 2}
    )
    with pytest.raises(RunFailedError, match=r"rank 1: died; the same command goes on") as failed:
        trainer._fit_again(config, Reporter(), RunFolder.planned(config), None, 2)
    assert not isinstance(failed.value, WorkersLostError)
    assert [text.count("starting again") for text in told] == [1, 1]
    assert fits == [2, 3, 1]

    def no_room(*_: object, **__: object) -> int:
        raise NoRoomError("no room")

    monkeypatch.setattr(trainer, "place", no_room)
    with pytest.raises(RunFailedError, match=r"^no room; the same command goes on") as failed:
        trainer._fit_again(config, Reporter(), RunFolder.planned(config), None, 2)
    assert not isinstance(failed.value, WorkersLostError)


def test_an_interrupt_does_not_end_as_success(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Trainer:
        """What Ray Train's fit does on Ctrl-C: its own handler, and an exit with status 0."""

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def fit(self) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise SystemExit(0)

    monkeypatch.setattr(fit, "TorchTrainer", Trainer)
    monkeypatch.setattr(fit, "deliver", contextlib.nullcontext)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit.fit(
            default_recipe("digits_cnn", 5),
            SilentReporter(),
            num_workers=2,
            storage=tmp_path,
            fingerprint=None,
            is_evaluation=False,
        )
    assert signal.getsignal(signal.SIGINT) == before
