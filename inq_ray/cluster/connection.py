"""Joining the cluster that there is, or starting one on this machine; and whether the workers fit in it."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import ray
import torch

from inq_ray.training.config import ClusterConfig

# Ray's own messages are off unless asked for; ours say what a user has to know.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_DEDUP_LOGS": "0"}


@contextlib.contextmanager
def connected(cluster: ClusterConfig, *, verbose: bool) -> Iterator[None]:
    """Connects to the cluster of RAY_ADDRESS or of this machine, else starts one here for the time of the block.

    Raises:
        ValueError: the workers do not fit; before a cluster is started where it can be known.
        ConnectionError: RAY_ADDRESS names a cluster that does not answer.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "120")
    options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.ERROR}
    if not verbose:
        logging.getLogger("ray").setLevel(logging.ERROR)
    already = ray.is_initialized()
    if not already and not _join(options):
        check_fits(
            cluster, {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}, "this machine"
        )
        ray.init(address="local", include_dashboard=True, **options)
    try:
        check_fits(cluster, ray.cluster_resources(), "the cluster")  # type: ignore[no-untyped-call]
        yield
    finally:
        if not already:
            ray.shutdown()


def check_fits(cluster: ClusterConfig, resources: dict[str, float], whose: str) -> None:
    """Refuses more workers than there is room for.

    Args:
        cluster: what is asked for.
        resources: totals by Ray's names, "CPU" and "GPU".
        whose: for the message.

    Raises:
        ValueError: names what is asked for, what there is, and the flag.
    """
    num_cpus, num_gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if cluster.use_gpu and num_gpus == 0:
        raise ValueError(f"--use-gpu: {whose} has no GPU; leave it out to train on CPUs")
    if cluster.use_gpu and cluster.num_workers > num_gpus:
        raise ValueError(f"--num-workers {cluster.num_workers} is more than the {num_gpus} GPUs that {whose} has")
    wanted = cluster.num_workers * cluster.cpus_per_worker
    if wanted > num_cpus:
        raise ValueError(
            f"--num-workers {cluster.num_workers} and --cpus-per-worker {cluster.cpus_per_worker} need {wanted} CPUs, "
            f"{whose} has {num_cpus}: take fewer workers"
        )


def _join(options: dict[str, Any]) -> bool:
    """Connects to a running cluster; False where there is none and none is named."""
    address = os.environ.get("RAY_ADDRESS", "auto")
    if address == "local":
        return False
    try:
        ray.init(address=address, **options)
    except ConnectionError:
        if address != "auto":
            raise
        return False
    return True
