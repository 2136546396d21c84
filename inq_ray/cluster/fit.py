"""One Ray Train fit: workers are placed, work, and end."""

import signal
import threading
from pathlib import Path

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.config import FailureConfig

from inq_ray.cluster.failure import failure_of
from inq_ray.cluster.mailbox import deliver
from inq_ray.cluster.placement import worker_resources
from inq_ray.cluster.worker import work
from inq_ray.training.config import RunConfig
from inq_ray.training.reporter import Reporter

# Bound of every collective operation: a rank that is gone is noticed after this.
_COLLECTIVE_SECONDS = 1800

# By itself Ray Train asks for as many workers as before, for ever, where some do not start or were preempted.
_NO_SECOND_TRY = FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0)


def fit(
    config: RunConfig,
    reporter: Reporter,
    *,
    num_workers: int,
    storage: Path,
    fingerprint: str | None,
    is_evaluation: bool,
) -> None:
    """Lets the workers run, or evaluate, to their end.

    Args:
        config: checked.
        reporter: takes the events of rank 0, in this process.
        num_workers: by :func:`inq_ray.cluster.placement.place`.
        storage: Ray Train's own folder, empty.
        fingerprint: of the data.
        is_evaluation: measure the network as it is, and nothing else.

    Raises:
        RunFailedError: a worker failed; WorkersLostError where one is gone.
        KeyboardInterrupt: it was interrupted.
    """
    cluster = config.cluster
    with deliver(reporter) as mailbox:
        trainer = TorchTrainer(
            work,
            train_loop_config={
                "config": config.to_json(),
                "fingerprint": fingerprint,
                "mailbox": mailbox,
                "evaluate": is_evaluation,
            },
            scaling_config=ray.train.ScalingConfig(
                num_workers=num_workers, use_gpu=cluster.use_gpu, resources_per_worker=worker_resources(cluster)
            ),
            run_config=ray.train.RunConfig(
                name="train",
                storage_path=str(storage),
                failure_config=_NO_SECOND_TRY,
            ),
            torch_config=TorchConfig(timeout_s=_COLLECTIVE_SECONDS),
        )
        previous = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit()
        except SystemExit as stop:
            raise KeyboardInterrupt from stop  # Ray Train's handler of Ctrl-C ends the workers, then exits with 0
        except ray.train.TrainingFailedError as error:
            raise failure_of(error) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, previous)
