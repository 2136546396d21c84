"""How a run that ends badly is told, without a cluster."""

import contextlib
import signal
from pathlib import Path

import pytest
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from inq_ray.cluster import trainer
from inq_ray.training.loop import DivergedError
from inq_ray.training.recipes import default_recipe
from inq_ray.training.reporter import SilentReporter


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
    assert trainer._reason(_FailedError(failures)) == "rank 1: DivergedError: epoch 1: the training loss is nan"
    assert trainer._reason(_FailedError({0: _wrapped(echo)})).startswith("rank 0: RuntimeError: [gloo")


def test_a_process_that_died_is_said_to_have_died() -> None:
    failure = WorkerHealthCheckFailedError("A worker health check failed.", OSError("The actor died unexpectedly"))
    assert trainer._reason(_FailedError({1: failure})) == "rank 1: OSError: The actor died unexpectedly"
    assert trainer._reason(_FailedError({})) == "workers failed"
    assert trainer._reason(_FailedError({0: ValueError()})) == "rank 0: ValueError: no message"


def test_an_interrupt_does_not_end_as_success(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Trainer:
        """What Ray Train's fit does on Ctrl-C: its own handler, and an exit with status 0."""

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def fit(self) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise SystemExit(0)

    monkeypatch.setattr(trainer, "TorchTrainer", Trainer)
    monkeypatch.setattr(trainer, "deliver", contextlib.nullcontext)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer._fit(default_recipe("digits_cnn", 5), SilentReporter(), storage=tmp_path, is_evaluation=False)
    assert signal.getsignal(signal.SIGINT) == before
