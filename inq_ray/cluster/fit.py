"""One Ray Train fit: workers are placed, work, and end."""

import signal
import threading
from pathlib import Path

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from inq_ray.cluster.failure import failure_of
from inq_ray.cluster.mailbox import deliver
from inq_ray.cluster.worker import work
from inq_ray.training.config import RunConfig
from inq_ray.training.reporter import Reporter

# Bound of every collective operation: a rank that is gone is noticed after this.
_COLLECTIVE_SECONDS = 1800


def fit(config: RunConfig, reporter: Reporter, *, storage: Path, fingerprint: str | None, is_evaluation: bool) -> None:
    """Lets the workers run, or evaluate, to their end.

    Args:
        config: checked.
        reporter: takes the events of rank 0, in this process.
        storage: Ray Train's own folder, empty.
        fingerprint: of the data.
        is_evaluation: measure the network as it is, and nothing else.

    Raises:
        RunFailedError: a worker failed; WorkersLostError where one is gone.
        KeyboardInterrupt: it was interrupted.
    """
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
            raise failure_of(error) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, previous)
