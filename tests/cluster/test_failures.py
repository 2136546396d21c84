"""How a run that ends badly is told, without a cluster."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import ray.train
import torch
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)

from inq_ray.cluster import fit, trainer
from inq_ray.cluster.failure import (
    MailboxLostError,
    RunDivergedError,
    RunFailedError,
    RunRefusedError,
    RunStoppedError,
    WorkersLostError,
    failure_of,
)
from inq_ray.cluster.placement import NoRoomError
from inq_ray.cluster.stopping import StopSignals
from inq_ray.distributed.agreement import ReplicaMismatchError
from inq_ray.training.checkpoint.clock import StopError
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.evaluation.float_accuracy import FloatAccuracyError
from inq_ray.training.loop.non_finite import DivergedError
from inq_ray.training.report.events import Event, SilentReporter, Waiting
from inq_ray.training.report.incident import IncidentLog
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
    diverged = DivergedError(0, "epoch 1: the training loss is nan\nmore", "lower --lr")
    failures = {0: _wrapped(echo), 1: _wrapped(diverged)}
    failure = failure_of(_FailedError(failures))
    assert str(failure) == "rank 1: DivergedError: epoch 1: the training loss is nan"
    assert isinstance(failure, RunDivergedError)
    echoed = failure_of(_FailedError({0: _wrapped(echo)}))
    assert str(echoed) == "rank 0: lost the connection to another worker (Connection closed by peer)"
    assert isinstance(echoed, WorkersLostError)


def test_a_process_that_died_is_said_to_have_died() -> None:
    failure = WorkerHealthCheckFailedError("A worker health check failed.", OSError("The actor died unexpectedly"))
    died = failure_of(_FailedError({1: failure}))
    assert isinstance(died, WorkersLostError)
    assert str(died) == "rank 1: OSError: The actor died unexpectedly"
    assert str(failure_of(_FailedError({}))) == "workers failed"
    assert not isinstance(failure_of(_FailedError({})), WorkersLostError)
    assert str(failure_of(_FailedError({0: ValueError()}))) == "rank 0: ValueError: no message"
    started = RuntimeError("\n    An attempt has been made to start \x1b[1m\n    before ...")
    line = r"rank 0: RuntimeError: An attempt has been made to start \x1b[1m"
    assert str(failure_of(_FailedError({0: _wrapped(started)}))) == line


def test_a_worker_that_does_not_answer_is_lost() -> None:
    echo = RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 10000ms for recv operation")
    failures = {0: _wrapped(echo), 1: WorkerHealthCheckTimeoutError("A worker health check has been hanging")}
    failure = failure_of(_FailedError(failures))
    assert isinstance(failure, WorkersLostError)
    assert str(failure) == "rank 1: WorkerHealthCheckTimeoutError: A worker health check has been hanging"


@pytest.mark.parametrize(
    "error",
    [MemoryError("no more"), torch.OutOfMemoryError("CUDA out of memory"), ray.exceptions.OutOfMemoryError("4 GB")],
)
def test_memory_that_is_not_enough_is_not_tried_again(error: Exception) -> None:
    failure = failure_of(_FailedError({0: _wrapped(error)}))
    assert not isinstance(failure, WorkersLostError)
    assert "use a smaller --batch-size" in str(failure)


@pytest.mark.parametrize(
    "error", [WorkerGroupStartupTimeoutError(3), WorkerGroupStartupFailedError("one of them\nwith a trace")]
)
def test_workers_that_do_not_start_are_lost_workers(error: Exception) -> None:
    failure = failure_of(ray.train.ControllerError(error))
    assert isinstance(failure, WorkersLostError)
    assert str(failure) == str(error).splitlines()[0]
    assert not isinstance(failure_of(ray.train.ControllerError(ValueError("ours"))), WorkersLostError)


@pytest.mark.parametrize(
    "error",
    [
        ray.exceptions.ActorDiedError(),
        ray.exceptions.ActorUnavailableError("no route to it\nactor: 1", None),
        ray.exceptions.NodeDiedError("the node is gone\nits id"),
    ],
)
def test_a_controller_that_is_gone_is_lost_workers(error: Exception) -> None:
    """A bug once: a traceback, status 1, and no other start."""
    failure = failure_of(error)
    assert isinstance(failure, WorkersLostError)
    assert str(failure).startswith("Ray Train's controller, which watches the workers, is lost: ")
    assert "\n" not in str(failure)


def test_a_controller_that_fails_is_there() -> None:
    error = ray.exceptions.RayTaskError("run", "trace\nValueError: ours", ValueError("ours"))
    assert not isinstance(failure_of(error), WorkersLostError)


def test_a_mailbox_that_is_gone_is_lost_workers() -> None:
    failure = failure_of(_FailedError({0: _wrapped(MailboxLostError("it is gone"))}))
    assert isinstance(failure, WorkersLostError)


class _Told:
    """Keeps the text of what is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def report(self, event: Event) -> None:
        if not isinstance(event, Waiting):
            self.texts.append(str(event))


def _attempts(folder: Path, signals: StopSignals | None = None, **cluster: object) -> tuple[trainer._Attempts, _Told]:
    config = default_recipe("digits_cnn", 5).replace(
        output={"storage_path": str(folder), "name": "lost"}, cluster=dict(cluster)
    )
    told = _Told()
    run = RunFolder.create(config)
    return trainer._Attempts(config, told, signals or StopSignals(), run, None), told


def _counts(folder: Path) -> dict[str, int]:
    counts: dict[str, int] = IncidentLog(folder / "lost" / "events.jsonl").summary()["counts"]
    return counts


def test_lost_workers_are_replaced_as_often_as_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whether the run really goes on is tested on Ray."""
    fits = []

    def lost(*_: object, num_workers: int, **__: object) -> None:
        fits.append(num_workers)
        raise WorkersLostError("rank 1: died")

    room = iter([3, 1])
    monkeypatch.setattr(trainer, "fit", lost)
    monkeypatch.setattr(trainer, "wait_for_placement", lambda *_, **__: next(room))
    attempts, told = _attempts(tmp_path, max_failures=2)
    with pytest.raises(RunFailedError, match=r"rank 1: died; run the same command to continue") as failed:
        attempts.fit_to_the_end(2)
    assert not isinstance(failed.value, WorkersLostError)
    assert [text.count("starting again") for text in told.texts] == [1, 1]
    assert fits == [2, 3, 1]
    assert _counts(tmp_path) == {"failed": 1, "workers_lost": 2}


def test_no_room_for_new_workers_ends_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def lost(*_: object, **__: object) -> None:
        raise WorkersLostError("rank 1: died")

    def no_room(*_: object, **__: object) -> int:
        raise NoRoomError("no room")

    monkeypatch.setattr(trainer, "fit", lost)
    monkeypatch.setattr(trainer, "wait_for_placement", no_room)
    attempts, _ = _attempts(tmp_path)
    with pytest.raises(RunFailedError, match=r"^no room; run the same command to continue") as failed:
        attempts.fit_to_the_end(2)
    assert not isinstance(failed.value, WorkersLostError)


@pytest.mark.parametrize("on_mismatch", ["stop", "restart"])
def test_replicas_that_differ_start_again_if_asked(
    on_mismatch: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attempts, told = _attempts(tmp_path, on_mismatch=on_mismatch)
    num_fits = 0

    def differ(*_: object, **__: object) -> None:
        nonlocal num_fits
        num_fits += 1
        if num_fits == 1:
            raise failure_of(_FailedError({0: _wrapped(ReplicaMismatchError(2, "weights", "conv.weight", [1]))}))
        (tmp_path / "lost" / "summary.json").write_text("{}")

    monkeypatch.setattr(trainer, "fit", differ)
    monkeypatch.setattr(trainer, "wait_for_placement", lambda *_, **__: 2)
    if on_mismatch == "restart":
        attempts.fit_to_the_end(2)
        assert num_fits == 2
        assert "'conv.weight' on ranks [1]" in told.texts[0]
        assert _counts(tmp_path) == {"replicas_differ": 1}
    else:
        with pytest.raises(RunFailedError, match=r"rank 0: ReplicaMismatchError: stage 2: weights differ"):
            attempts.fit_to_the_end(2)
        assert _counts(tmp_path) == {"failed": 1}


def test_workers_that_leave_are_replaced_and_not_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    attempts, _ = _attempts(tmp_path, max_failures=0)
    fits = iter([False, False, True])

    def leave(*_: object, **__: object) -> None:
        if next(fits):
            (tmp_path / "lost" / "summary.json").write_text("{}")

    monkeypatch.setattr(trainer, "fit", leave)
    monkeypatch.setattr(trainer, "wait_for_placement", lambda *_, **__: 2)
    attempts.fit_to_the_end(2)
    assert next(fits, None) is None


def test_a_signal_ends_a_run_that_has_left_a_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    signals = StopSignals()
    attempts, _ = _attempts(tmp_path, signals)

    def stop(*_: object, **__: object) -> None:
        signals.asked = signal.SIGTERM

    monkeypatch.setattr(trainer, "fit", stop)
    with pytest.raises(RunStoppedError, match=r"^SIGTERM: stopped; run the same command to continue") as stopped:
        attempts.fit_to_the_end(2)
    assert stopped.value.signal == signal.SIGTERM


def test_workers_that_are_lost_while_a_run_stops_are_not_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    signals = StopSignals()
    attempts, told = _attempts(tmp_path, signals, max_failures=0)

    def lose(*_: object, **__: object) -> None:
        signals.asked = signal.SIGTERM
        raise WorkersLostError("rank 0: the mailbox is gone")

    monkeypatch.setattr(trainer, "fit", lose)
    with pytest.raises(RunStoppedError, match=r"^SIGTERM: stopped; run the same command to continue"):
        attempts.fit_to_the_end(2)
    assert not [text for text in told.texts if "starting again" in text]
    assert _counts(tmp_path) == {"workers_lost": 1}


@pytest.mark.parametrize(
    ("error", "expected", "line"),
    [
        (DivergedError(1, "the loss is nan", "lower --lr"), RunDivergedError, "rank 0: DivergedError: the loss is nan"),
        (ValueError("no such data"), RunFailedError, "rank 0: ValueError: no such data"),
        (MemoryError("no more"), RunFailedError, "rank 0: MemoryError: no more; use a smaller --batch-size"),
    ],
)
def test_a_run_in_this_process_fails_as_one_of_a_worker(
    error: Exception, expected: type[RunFailedError], line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error from OSError("what was below")

    monkeypatch.setattr(fit, "run", fail)
    attempts, _ = _attempts(tmp_path, num_workers=1)
    attempts._is_here = True
    with pytest.raises(expected, match=f"^{line}"):
        attempts.fit_to_the_end(1)
    assert _counts(tmp_path) == {"failed": 1}
    assert sorted(path.name for path in (tmp_path / "lost").iterdir()) == ["config.json", "events.jsonl"]


def test_a_run_in_this_process_hears_the_wish_to_stop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    signals = StopSignals()
    attempts, _ = _attempts(tmp_path, signals, num_workers=1)
    attempts._is_here = True

    def stop(*_: object, is_asked_to_stop: Callable[[], bool], **__: object) -> None:
        assert not is_asked_to_stop()
        signals.asked = signal.SIGTERM
        assert is_asked_to_stop()
        raise StopError(None)

    monkeypatch.setattr(fit, "run", stop)
    with pytest.raises(RunStoppedError):
        attempts.fit_to_the_end(1)


def test_a_storage_that_does_not_come_back_is_a_failed_run(
    monkeypatch: pytest.MonkeyPatch, short_pauses: None, tmp_path: Path
) -> None:
    """At the first start it is the user's mistake; later the run goes on by the same command."""
    attempts, told = _attempts(tmp_path, num_workers=1, max_failures=1)
    attempts._is_here = True

    def lose(*_: object, **__: object) -> None:
        os.rename(tmp_path / "lost", tmp_path / "away")
        raise WorkersLostError("rank 0: died")

    monkeypatch.setattr(fit, "run", lose)
    monkeypatch.setattr(fit, "failure_of", lambda _: WorkersLostError("rank 0: died"))
    monkeypatch.setattr(trainer, "wait_for_placement", lambda *_, **__: 1)
    with pytest.raises(RunFailedError, match=r"^cannot write to .*; run the same command to continue"):
        attempts.fit_to_the_end(1)
    assert [text for text in told.texts if "waiting for its storage" in text]
    assert not (tmp_path / "lost").exists()


def test_half_a_summary_is_no_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a process leaves it that is killed while a file system without renames writes it."""
    signals = StopSignals()
    attempts, _ = _attempts(tmp_path, signals)
    (tmp_path / "lost" / "summary.json").write_text('{"top1": 9')

    def stop(*_: object, **__: object) -> None:
        signals.asked = signal.SIGTERM

    monkeypatch.setattr(trainer, "fit", stop)
    with pytest.raises(RunStoppedError):
        attempts.fit_to_the_end(2)


def test_the_first_signal_waits_for_workers_and_the_second_does_not() -> None:
    signals = StopSignals()
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with signals.listened_to():
        with signals.working():
            signal.raise_signal(signal.SIGTERM)
            assert signals.asked == signal.SIGTERM
            with pytest.raises(RunStoppedError, match="SIGTERM: ended at once"):
                signal.raise_signal(signal.SIGINT)
        signals = StopSignals()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with signals.listened_to(), pytest.raises(RunStoppedError, match="SIGINT"):
        signal.raise_signal(signal.SIGINT)  # nobody is at work yet


class _Mailbox:
    """Takes the wish to stop, and ends the fit."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.ask_to_stop = self

    def remote(self) -> None:
        self.asked.set()


def test_fitting_hears_signals_and_leaves_the_environment_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mailbox, bounds = _Mailbox(), list[str | None]()

    class Trainer:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def fit(self) -> None:
            assert threading.current_thread() is not threading.main_thread()
            bounds.extend(os.environ.get(name) for name in fit._BOUNDS)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            assert mailbox.asked.wait(30)

    monkeypatch.setenv(fit._BOUNDS[0], "77")
    monkeypatch.delenv(fit._BOUNDS[1], raising=False)
    monkeypatch.setattr(fit, "TorchTrainer", Trainer)
    monkeypatch.setattr(fit, "deliver", lambda _: contextlib.nullcontext(mailbox))
    signals = StopSignals()
    config = default_recipe("digits_cnn", 5).replace(
        cluster={"collective_timeout": "2m"}, output={"storage_path": str(tmp_path), "name": "run"}
    )
    RunFolder.create(config)
    with signals.listened_to():
        fit.fit(
            config,
            SilentReporter(),
            signals,
            num_workers=2,
            storage=tmp_path,
            fingerprint=None,
            is_evaluation=False,
        )
    assert signals.asked == signal.SIGTERM
    assert bounds == ["77", "120"]
    assert fit._BOUNDS[1] not in os.environ


def test_a_run_that_its_ranks_refuse_is_not_tried_again_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line = "float top-1 is 10.00 % on 500 images, near chance (10 % of 10 classes)"

    def refuse(*_: object, **__: object) -> None:
        raise failure_of(_FailedError({rank: _wrapped(FloatAccuracyError(line)) for rank in range(2)}))

    monkeypatch.setattr(trainer, "fit", refuse)
    attempts, told = _attempts(tmp_path)
    folder = RunFolder(tmp_path / "lost")
    with pytest.raises(RunRefusedError) as refused, trainer._deleted_if_refused(folder):
        attempts.fit_to_the_end(2)
    assert str(refused.value) == line
    assert told.texts == []
    assert not folder.path.exists()
