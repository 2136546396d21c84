"""Connection to a cluster, or start of one on this machine, in which the workers have to fit."""

import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping

import grpc
import ray
import ray.exceptions
import torch
from ray._private.grpc_utils import init_grpc_channel
from ray._private.utils import get_num_cpus
from ray._raylet import (  # type: ignore[attr-defined]
    AuthenticationMode,
    AuthenticationTokenLoader,
    get_authentication_mode,
)
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from inq_ray.cluster.watch import watched
from inq_ray.files.shown import counted, one_line, shown
from inq_ray.training.config import ClusterConfig

# Defaults for Ray's settings, unless the user has set them.
_DEFAULTS = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers stay in the job's working directory
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    "RAY_USAGE_STATS_ENABLED": "0",
}

# On a cluster of this machine alone there are no preemption notices, and frequent health checks are cheap.
_ON_ONE_MACHINE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}

# A head that starts together with the job responds by then. Ray would silently wait for a quarter of an hour.
_ANSWER_SECONDS = 20.0
_HOST_AND_PORT = re.compile(r"(?:ray://)?(?P<host>[\w.-]+):(?P<port>\d{1,5})")


@contextlib.contextmanager
def connected(
    cluster: ClusterConfig,
    *,
    verbose: bool,
    last_words: Callable[[str], None] = lambda _: None,
    status: Callable[[], int] = lambda: 1,
) -> Iterator[None]:
    """Connect to the cluster in RAY_ADDRESS, else start one on this machine for the block.

    `ray job submit` sets RAY_ADDRESS. A cluster that happens to run here is not used: it may be someone else's. A
    process that is connected already stays so. Any other ends with one line if it loses the cluster during the block.

    Args:
        cluster: Requested workers.
        verbose: Whether to show Ray's own log.
        last_words: Takes the line with which the process ends then.
        status: Returns the exit status of that end.

    Raises:
        ValueError: The workers do not fit into a cluster of this machine alone, which is not started then. Other
            clusters may get room, see :func:`inq_ray.cluster.placement.wait_for_placement`.
        ConnectionError: The cluster in RAY_ADDRESS does not respond, or asks for another token; or none could be
            started here.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield
        return
    _start_or_join(cluster, verbose)
    address = _address()
    is_client = address.startswith("ray://")  # there another process is the driver
    try:
        with (
            contextlib.nullcontext()
            if is_client
            else watched(is_own=address == "local", last_words=last_words, status=status)
        ):
            yield
    finally:
        ray.shutdown()


def in_words() -> str:
    """Return the first step of :func:`connected`, in words."""
    address = _address()
    if ray.is_initialized():
        return "connected to Ray"
    return "starting Ray on this machine" if address == "local" else f"connecting to Ray at {shown(address)}"


def _start_or_join(cluster: ClusterConfig, verbose: bool) -> None:
    check_fits_here(cluster)
    address = _address()
    if address == "local":
        for name, value in _ON_ONE_MACHINE.items():
            os.environ.setdefault(name, value)
    elif found := _HOST_AND_PORT.fullmatch(address):
        wait_for_answer(found["host"], int(found["port"]), _ANSWER_SECONDS)
        if not address.startswith("ray://"):
            check_token(address)
    if not verbose:
        logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(address=address, log_to_driver=verbose, logging_level=logging.INFO if verbose else logging.ERROR)
    except ray.exceptions.AuthenticationError as error:
        raise ConnectionError(_about_token(address)) from error
    except ValueError:  # a malformed address
        raise
    except Exception as error:  # Ray raises a bare Exception if a node does not start in time
        where = "on this machine" if address == "local" else f"RAY_ADDRESS {shown(address)}"
        raise ConnectionError(
            f"Ray did not start or respond, {where}: {one_line(error, 120)}; the machine may be too busy or short of "
            "memory: run the same command again, with --verbose for Ray's own log"
        ) from error


def check_token(address: str) -> None:
    """Check that a cluster accepts the token of this process; Ray itself would retry for minutes.

    Args:
        address: Host and port of the cluster's GCS.

    Raises:
        ConnectionError: The cluster requires a token, and this process has none or a different one.
    """
    try:
        with init_grpc_channel(address) as channel:
            stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
            stub.GetClusterId(gcs_service_pb2.GetClusterIdRequest(), timeout=_ANSWER_SECONDS)  # type: ignore[attr-defined]
    except ray.exceptions.AuthenticationError as error:
        raise ConnectionError(_about_token(address)) from error
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise ConnectionError(_about_token(address)) from None


def _about_token(address: str) -> str:
    """Return the message for a missing or wrong token of this process."""
    if not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        found = "this process has none"
    elif get_authentication_mode() == AuthenticationMode.TOKEN:
        found = "this process has a different one"
    else:
        found = "this process does not use its own"
    return (
        f"RAY_ADDRESS {shown(address)}: the cluster requires a token, and {found}: set RAY_AUTH_MODE=token, and "
        "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or the file ~/.ray/auth_token to the cluster's"
    )


def _address() -> str:
    """Return the address for ray.init; an empty RAY_ADDRESS counts as unset."""
    return os.environ.get("RAY_ADDRESS") or "local"


def wait_for_answer(host: str, port: int, seconds: float) -> None:
    """Wait until a process listens at the address in RAY_ADDRESS.

    Raises:
        ConnectionError: None did in that time.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((host, port), timeout=max(deadline - time.monotonic(), 0.1)):
                return
        except (OSError, OverflowError) as error:  # no such host, no listener, no such port
            if time.monotonic() + 1 > deadline:
                raise ConnectionError(
                    f"RAY_ADDRESS {os.environ.get('RAY_ADDRESS')}: nothing answers at {host}, port {port} ({error}): "
                    "start the cluster, or unset RAY_ADDRESS to start one on this machine"
                ) from None
        time.sleep(1)


def check_fits_here(cluster: ClusterConfig, *, loader_workers: int | None = None) -> None:
    """Refuse more processes than fit on this machine, if the cluster is one that is started on it.

    Args:
        cluster: Requested workers.
        loader_workers: Loader processes per worker; None = as many as fit.

    Raises:
        ValueError: They do not fit; names what is requested, what there is, and the flag.
    """
    if not ray.is_initialized() and _address() == "local":
        num_cpus = int(get_num_cpus(override_docker_cpu_warning=True))  # as Ray counts: a container may have fewer
        check_fits(cluster, {"CPU": float(num_cpus), "GPU": float(torch.cuda.device_count())})
        if loader_workers is not None and loader_workers > num_cpus:
            raise ValueError(
                f"--loader-workers {loader_workers} is more than the {counted(num_cpus, 'CPU')} that this machine has"
            )


def check_fits(cluster: ClusterConfig, resources: Mapping[str, float]) -> None:
    """Refuse more workers, or a larger minimum number of them, than fit on this machine.

    Args:
        cluster: Requested workers.
        resources: Resources of this machine by Ray's names, "CPU" and "GPU".

    Raises:
        ValueError: They do not fit; names what is requested, what there is, and the flag.
    """
    num_cpus, num_gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    workers = cluster.workers
    if cluster.use_gpu and num_gpus == 0:
        raise ValueError("--use-gpu: this machine has no GPU; leave it out to train on CPUs")
    if cluster.use_gpu and workers.least > num_gpus:
        raise ValueError(f"--num-workers {workers} is more than the {counted(num_gpus, 'GPU')} that this machine has")
    wanted = workers.least * cluster.cpus_per_worker
    if wanted > num_cpus:
        raise ValueError(
            f"--num-workers {workers} and --cpus-per-worker {cluster.cpus_per_worker} need {counted(wanted, 'CPU')}, "
            f"this machine has {num_cpus}: use fewer workers"
        )
