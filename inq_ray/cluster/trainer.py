"""A configuration -> a Ray Train run."""

import json
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer

from inq_ray.cluster.connection import connected
from inq_ray.cluster.mailbox import deliver
from inq_ray.cluster.worker import work
from inq_ray.tracking.trackers import Together, open_trackers
from inq_ray.training.accuracy import Accuracy
from inq_ray.training.checkpoint.resume import Decision
from inq_ray.training.config import RunConfig
from inq_ray.training.reporter import Event, Note, Reporter
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.start import look, prepare

# Bound of every collective operation: a rank that is gone is noticed after this.
_COLLECTIVE_SECONDS = 1800


class RunFailedError(RuntimeError):
    """A run that started did not end well; one line with rank and reason."""


class WorkersLostError(RunFailedError):
    """Workers or a node are gone; the run can go on from its last checkpoint."""


def quantize(
    config: RunConfig,
    reporter: Reporter,
    *,
    decision: Decision | None = None,
    fingerprint: str | None = None,
    verbose: bool = False,
) -> dict[str, Any]:
    """Runs a configuration on a Ray cluster, from its last checkpoint where there is one.

    Args:
        config: checked by :func:`inq_ray.training.build.check`, with a name.
        reporter: takes the events of rank 0, in this process.
        decision: of :func:`inq_ray.training.start.look`, to start or to go on; None = it is asked here.
        fingerprint: of the data; workers that see other data end the run.
        verbose: whether Ray's own log is shown.

    Returns:
        The summary of the run.

    Raises:
        ValueError: the name is taken, or the workers do not fit into the cluster; nothing was started or written.
        RunFailedError: a worker failed, or workers were lost too often.
    """
    summary: dict[str, Any] | None = None
    with connected(config.cluster, verbose=verbose):
        folder = prepare(config, decision or look(config, fingerprint=fingerprint))
        trackers = open_trackers(config.output.track, config, folder.path)
        try:
            _fit_again(config, Together(reporter, trackers), folder, fingerprint)
            summary = _read_summary(folder)
        finally:
            trackers.close(summary)
    return summary


def _fit_again(config: RunConfig, reporter: Reporter, folder: RunFolder, fingerprint: str | None) -> None:
    """Trains, and goes on where workers were lost, as often as is allowed."""
    num_failures, allowed = 0, config.cluster.max_failures
    while True:
        # A storage of its own each time: Ray Train would take up its own state of the time before.
        shutil.rmtree(folder.ray, ignore_errors=True)
        try:
            _fit(config, reporter, storage=folder.ray, fingerprint=fingerprint, is_evaluation=False)
        except WorkersLostError as error:
            num_failures += 1
            if num_failures > allowed:
                raise RunFailedError(f"{error}; the same command goes on from the last checkpoint") from error
            reporter.report(Note(f"{error}: starting again ({num_failures} of --max-failures {allowed})"))
        else:
            return


def _read_summary(folder: RunFolder) -> dict[str, Any]:
    """What the workers have written last."""
    if not folder.summary.is_file():
        raise RunFailedError(
            f"this machine sees no {folder.summary} of the workers: --storage-path must be a folder of all nodes"
        )
    summary: dict[str, Any] = json.loads(folder.summary.read_text(encoding="utf-8"))
    return summary


def evaluate(config: RunConfig, *, fingerprint: str | None = None, verbose: bool = False) -> Accuracy:
    """Accuracy of a network as it is, measured on a Ray cluster; nothing is kept.

    Arguments as in :func:`quantize`.

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
        _fit(config, keeper, storage=Path(folder), fingerprint=fingerprint, is_evaluation=True)
    if keeper.accuracy is None:
        raise RunFailedError("the workers ended without a result")
    return keeper.accuracy


class _Keeper:
    def __init__(self) -> None:
        self.accuracy: Accuracy | None = None

    def report(self, event: Event) -> None:
        if isinstance(event, Accuracy):
            self.accuracy = event


def _fit(config: RunConfig, reporter: Reporter, *, storage: Path, fingerprint: str | None, is_evaluation: bool) -> None:
    cluster = config.cluster
    with deliver(reporter) as mailbox:
        resources = {"CPU": cluster.cpus_per_worker} | ({"GPU": 1} if cluster.use_gpu else {})
        trainer = TorchTrainer(
            work,
            train_loop_config={
                "config": config.to_json(),
                "fingerprint": fingerprint,
                "mailbox": mailbox,
                "evaluate": is_evaluation,
            },
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
            raise _failure(error) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, previous)


def _failure(error: Exception) -> RunFailedError:
    """What went wrong, in one line: the error of the rank that failed first, not of those that lost touch with it."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    causes = {rank: _cause(failure) for rank, failure in failures.items()}
    if not causes:
        return RunFailedError(str(error).splitlines()[0])
    rank = min(causes, key=lambda rank: (_is_echo(causes[rank]), rank))
    name, text = type(causes[rank]).__name__, str(causes[rank])
    line = f"rank {rank}: {name}: {text.splitlines()[0] if text else 'no message'}"
    if _is_out_of_memory(causes[rank]):
        line += "; take a smaller --batch-size, a larger --accumulate, or fewer --loader-workers"
        return RunFailedError(line)
    return WorkersLostError(line) if _is_lost(failures[rank], causes[rank]) else RunFailedError(line)


def _is_lost(failure: Exception, cause: BaseException) -> bool:
    """Whether a process or its machine went away, and not the program that failed: another try may end well."""
    is_silent = hasattr(failure, "health_check_failure")
    return is_silent or isinstance(cause, ray.exceptions.RayError) or _is_echo(cause)


def _is_out_of_memory(cause: BaseException) -> bool:
    return isinstance(cause, MemoryError | torch.OutOfMemoryError | ray.exceptions.OutOfMemoryError) or (
        isinstance(cause, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(cause)
    )


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
