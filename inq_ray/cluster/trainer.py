"""A configuration -> a Ray Train run."""

import json
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from inq_ray.cluster.connection import connected
from inq_ray.cluster.mailbox import deliver
from inq_ray.cluster.worker import work
from inq_ray.tracking.trackers import Together, open_trackers
from inq_ray.training.accuracy import Accuracy
from inq_ray.training.config import RunConfig
from inq_ray.training.reporter import Event, Reporter
from inq_ray.training.run_folder import RunFolder

# Bound of every collective operation: a rank that is gone is noticed after this.
_COLLECTIVE_SECONDS = 1800


class RunFailedError(RuntimeError):
    """A run that started did not end well; one line with rank and reason."""


def quantize(config: RunConfig, reporter: Reporter, *, verbose: bool = False) -> dict[str, Any]:
    """Runs a configuration on a Ray cluster.

    Args:
        config: checked by :func:`inq_ray.training.build.check`, with a name.
        reporter: takes the events of rank 0, in this process.
        verbose: whether Ray's own log is shown.

    Returns:
        The summary of the run.

    Raises:
        ValueError: the name is taken, or the workers do not fit into the cluster; nothing was started or written.
        RunFailedError: a worker failed.
    """
    RunFolder.planned(config).check_free(config.output.overwrite)
    summary: dict[str, Any] | None = None
    with connected(config.cluster, verbose=verbose):
        folder = RunFolder.create(config)
        trackers = open_trackers(config.output.track, config, folder.path)
        try:
            _fit(config, Together(reporter, trackers), storage=folder.ray, is_evaluation=False)
            summary = _read_summary(folder)
        finally:
            trackers.close(summary)
    return summary


def _read_summary(folder: RunFolder) -> dict[str, Any]:
    """What the workers have written last."""
    if not folder.summary.is_file():
        raise RunFailedError(
            f"this machine sees no {folder.summary} of the workers: --storage-path must be a folder of all nodes"
        )
    summary: dict[str, Any] = json.loads(folder.summary.read_text(encoding="utf-8"))
    return summary


def evaluate(config: RunConfig, *, verbose: bool = False) -> Accuracy:
    """Accuracy of a network as it is, measured on a Ray cluster; nothing is kept.

    Raises:
        ValueError: the workers do not fit into the cluster.
        RunFailedError: a worker failed.
    """
    keeper = _Keeper()
    storage = Path(config.output.storage_path).expanduser().absolute()
    parent = storage if storage.is_dir() else None
    with (
        connected(config.cluster, verbose=verbose),
        tempfile.TemporaryDirectory(prefix=".evaluate-", dir=parent, ignore_cleanup_errors=True) as folder,
    ):
        _fit(config, keeper, storage=Path(folder), is_evaluation=True)
    if keeper.accuracy is None:
        raise RunFailedError("the workers ended without a result")
    return keeper.accuracy


class _Keeper:
    def __init__(self) -> None:
        self.accuracy: Accuracy | None = None

    def report(self, event: Event) -> None:
        if isinstance(event, Accuracy):
            self.accuracy = event


def _fit(config: RunConfig, reporter: Reporter, *, storage: Path, is_evaluation: bool) -> None:
    cluster = config.cluster
    with deliver(reporter) as mailbox:
        resources = {"CPU": cluster.cpus_per_worker} | ({"GPU": 1} if cluster.use_gpu else {})
        trainer = TorchTrainer(
            work,
            train_loop_config={"config": config.to_json(), "mailbox": mailbox, "evaluate": is_evaluation},
            scaling_config=ray.train.ScalingConfig(
                num_workers=cluster.num_workers, use_gpu=cluster.use_gpu, resources_per_worker=resources
            ),
            run_config=ray.train.RunConfig(name="train", storage_path=str(storage)),
            torch_config=TorchConfig(timeout_s=_COLLECTIVE_SECONDS),
        )
        previous = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit()
        except SystemExit as stop:
            raise KeyboardInterrupt from stop  # Ray Train's handler of Ctrl-C ends the workers, then exits with 0
        except ray.train.TrainingFailedError as error:
            raise RunFailedError(_reason(error)) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, previous)


def _reason(error: Exception) -> str:
    """What went wrong, in one line: the error of the rank that failed first, not of those that lost touch with it."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    causes = {rank: _cause(failure) for rank, failure in failures.items()}
    if not causes:
        return str(error).splitlines()[0]
    rank = min(causes, key=lambda rank: (_is_echo(causes[rank]), rank))
    name, text = type(causes[rank]).__name__, str(causes[rank])
    return f"rank {rank}: {name}: {text.splitlines()[0] if text else 'no message'}"


def _cause(failure: Exception) -> BaseException:
    """What Ray Train has wrapped: the worker's own exception, or what became of its process."""
    for attribute in ("_base_exc", "health_check_failure", "__cause__"):
        inner = getattr(failure, attribute, None)
        if isinstance(inner, BaseException):
            return inner
    return failure


def _is_echo(cause: BaseException) -> bool:
    """Whether a collective operation failed, as it does on every rank when one of them is gone."""
    return any(word in str(cause) for word in ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer"))
