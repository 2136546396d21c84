"""One Ray Train fit: workers are placed, work, and end."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray.exceptions
import ray.train
import torch
from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import FailureConfig

from inq_ray.cluster.failure import failure_of
from inq_ray.cluster.mailbox import deliver
from inq_ray.cluster.node.notice import ListeningTorchConfig
from inq_ray.cluster.node.shared_folders import folders_of
from inq_ray.cluster.placement import worker_resources
from inq_ray.cluster.stopping import StopSignals
from inq_ray.cluster.worker import work
from inq_ray.training.attempt import Attempt, begun
from inq_ray.training.checkpoint.clock import StopError
from inq_ray.training.config import ClusterConfig, RunConfig
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.evaluation.evaluate import evaluate_only
from inq_ray.training.report.events import Note, Reporter
from inq_ray.training.run import run
from inq_ray.training.run_folder import RunFolder

# Ray Train's default asks for the same number of workers forever if some do not start or were preempted.
_NO_SECOND_TRY = FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0)

# Ray's own timeouts for a worker's answer: about its state (10 minutes by default), and of one rank to another.
_BOUNDS = ("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", "RAY_TRAIN_COLLECTIVE_TIMEOUT_S")
# A busy worker answers late: shorter timeouts prove nothing.
_LEAST_BOUND = 10

_POLL_SECONDS = 0.2


def fit(
    config: RunConfig,
    reporter: Reporter,
    signals: StopSignals,
    *,
    num_workers: int,
    storage: Path,
    fingerprint: str | None,
    is_evaluation: bool,
) -> None:
    """Run the workers to their end; or to a checkpoint, after a signal or a notice.

    Args:
        config: Checked configuration.
        reporter: Receives rank 0's events, in this process.
        signals: Signals that this process received.
        num_workers: Number from :func:`inq_ray.cluster.placement.wait_for_placement`.
        storage: Ray Train's own folder, empty.
        fingerprint: Fingerprint of the data.
        is_evaluation: Whether to evaluate the network only.

    Raises:
        RunFailedError: A worker failed; WorkersLostError if one is lost, ReplicasDifferError if they differ.
        RunStoppedError: A second signal was received.
        ValueError: A folder of the run is not writable, or its storage cannot be reached.
    """
    unmarked = contextlib.nullcontext()  # an evaluation writes nothing
    with unmarked if is_evaluation else begun(folders_of(config), lambda text: reporter.report(Note(text))) as mark:
        run_workers(
            work,
            {"config": config.to_json(), "fingerprint": fingerprint, "evaluate": is_evaluation, "mark": mark},
            config.cluster,
            reporter,
            signals,
            num_workers=num_workers,
            storage=storage,
        )


def run_workers(
    function: Callable[[dict[str, Any]], None],
    arguments: dict[str, Any],
    cluster: ClusterConfig,
    reporter: Reporter,
    signals: StopSignals,
    *,
    num_workers: int,
    storage: Path,
) -> None:
    """Call a function on each of the workers, until all have returned.

    Args:
        function: The function; gets the arguments, and "mailbox" (actor handle).
        arguments: Plain values.
        cluster: Resources of a worker, and how long it may be silent.
        reporter: Receives rank 0's events, in this process.
        signals: Signals that this process received.
        num_workers: Number from :func:`inq_ray.cluster.placement.wait_for_placement`.
        storage: Ray Train's own folder, empty.

    Raises:
        RunFailedError: A worker failed; WorkersLostError if one is lost, ReplicasDifferError if they differ.
        RunStoppedError: A second signal was received.
    """
    with deliver(reporter) as mailbox, _bounded(cluster.collective_seconds):
        trainer = TorchTrainer(
            function,
            train_loop_config={**arguments, "mailbox": mailbox},
            scaling_config=ray.train.ScalingConfig(
                num_workers=num_workers, use_gpu=cluster.use_gpu, resources_per_worker=worker_resources(cluster)
            ),
            run_config=ray.train.RunConfig(
                name="train",
                storage_path=str(storage),
                failure_config=_NO_SECOND_TRY,
            ),
            torch_config=ListeningTorchConfig(timeout_s=cluster.collective_seconds),
        )
        try:
            _fit_beside(trainer, signals, mailbox)
        except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
            raise failure_of(error) from error


def fit_here(config: RunConfig, reporter: Reporter, signals: StopSignals, *, fingerprint: str | None) -> None:
    """Do the work of :func:`fit` with one worker in this process, which has a worker's resources.

    This saves Ray Train's controller, its worker and the mailbox: three processes that take seconds for their imports.

    Raises:
        RunFailedError: The run failed.
        ValueError: A folder of the run is not writable, or its storage cannot be reached.
    """
    folders = folders_of(config)
    torch.set_num_threads(config.cluster.cpus_per_worker)
    with (
        begun(folders, lambda text: reporter.report(Note(text))) as mark,
        contextlib.suppress(StopError),  # it is reported, and finds no summary
        _failing_as_a_worker(),
    ):
        run(
            config,
            device=torch.device("cuda", 0) if config.cluster.use_gpu else torch.device("cpu"),
            reporter=reporter,
            folder=RunFolder.planned(config, Attempt(mark, tuple(folders.values()))),
            fingerprint=fingerprint,
            is_asked_to_stop=lambda: signals.asked is not None,
        )


def evaluate_here(config: RunConfig, *, fingerprint: str | None) -> Accuracy:
    """Return the accuracy of a network, measured by one CPU worker in this process; nothing is stored.

    Raises:
        RunFailedError: The measurement failed.
    """
    torch.set_num_threads(config.cluster.cpus_per_worker)
    with _failing_as_a_worker():
        return evaluate_only(config, device=torch.device("cpu"), fingerprint=fingerprint)


@contextlib.contextmanager
def _failing_as_a_worker() -> Iterator[None]:
    """Turn any failure in the block into that of rank 0, as Ray Train does; a stop is not a failure."""
    try:
        yield
    except StopError:
        raise
    except Exception as error:  # of any kind, as from a worker of Ray Train; it is judged by its cause
        failure = RuntimeError()
        failure.__cause__ = error
        raise failure_of(ray.train.WorkerGroupError("", {0: failure})) from error


def _fit_beside(trainer: TorchTrainer, signals: StopSignals, mailbox: Any) -> None:
    """Fit in another thread: in the main one Ray Train would handle Ctrl-C itself, and exit with 0."""
    failures: list[BaseException] = []

    def work_on() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001, raised in the main thread
            failures.append(error)

    thread = threading.Thread(target=work_on, name="inq_ray-fit", daemon=True)
    is_told = False
    with signals.working():
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            if signals.asked and not is_told:
                is_told = True
                mailbox.ask_to_stop.remote()
    if failures:
        raise failures[0]


@contextlib.contextmanager
def _bounded(seconds: int) -> Iterator[None]:
    """Set Ray Train's timeouts in the environment, unless the user has set them."""
    missing = [name for name in _BOUNDS if name not in os.environ]
    for name in missing:
        os.environ[name] = str(max(_LEAST_BOUND, seconds))
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]
