"""How many workers a start gets: as many as have room in the cluster now, within the range that is asked for.

Ray Train has elastic workers too. They are not used: it grows and shrinks a run in the middle of its steps, by the
cluster's totals whoever holds them, and tries again whatever the failure was. Here each start looks once, and what was
found stays until the next start: a run that has lost workers grows again when it next starts, not before.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import ray
from ray._private.state import available_resources_per_node, state
from ray.autoscaler.v2.schema import ClusterStatus
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.util import placement_group, remove_placement_group

from inq_ray.training.config import ClusterConfig

# A worker that was just lost gives back what it held within seconds: fewer than the most are not taken before.
GRACE_SECONDS = 5.0
# Between two looks. What cannot be reserved in this time is not there: a lost node is listed for a while.
_LOOK_SECONDS = 5.0
_GRACE_LOOK_SECONDS = 0.1
# What `ray up` leaves on the head, where jobs are driven.
_OF_RAY_UP = Path("~/ray_bootstrap_config.yaml")
_LONGEST_REASON = 200

Resources = Mapping[str, float]


class NoRoomError(ValueError):
    """The cluster has no room for the least number of workers."""


class Launches(NamedTuple):
    """Nodes that an autoscaler has asked for, by the names of their types.

    Attributes:
        coming: how many are on their way.
        failed: why the last ones could not be had.
    """

    coming: Mapping[str, int] = {}
    failed: Mapping[str, str] = {}


class Room(Protocol):
    """What is free in a cluster."""

    def free(self) -> list[Resources]:
        """Free resources of each node that is believed to be alive and to stay, by Ray's names."""
        ...

    def can_hold(self, worker: Resources, num_workers: int, seconds: float) -> bool:
        """Whether so many workers could be reserved at once, within this time; nothing stays reserved."""
        ...

    def most(self) -> Resources | None:
        """All resources to which an autoscaler may bring the cluster; None where there is none, or it does not say."""
        ...

    def launches(self) -> Launches:
        """What an autoscaler says of nodes that it is bringing, or could not bring."""
        ...


class RayRoom:
    """Room in the cluster that this process is connected to."""

    def free(self) -> list[Resources]:
        """See :class:`Room`."""
        free: dict[str, Resources] = available_resources_per_node()  # type: ignore[no-untyped-call]
        leaving = state.get_draining_nodes()
        return [resources for node, resources in free.items() if node not in leaving]

    def can_hold(self, worker: Resources, num_workers: int, seconds: float) -> bool:
        """See :class:`Room`; while it waits, a cluster that can grow sees what is wanted."""
        group = placement_group([dict(worker)] * num_workers, strategy="PACK")
        try:
            return bool(group.wait(seconds))
        finally:
            remove_placement_group(group)

    def most(self) -> Resources | None:
        """See :class:`Room`; Ray's own autoscalers do not say it, those of some platforms do."""
        most: dict[str, int] | None = state.get_max_resources_from_cluster_config()
        return most

    def launches(self) -> Launches:
        """See :class:`Room`; the autoscaler of version 2 says it, that of version 1 nothing."""
        status = self._status()
        coming = Counter(node.ray_node_type_name for node in status.pending_nodes)
        for launch in status.pending_launches:
            coming[launch.ray_node_type_name] += launch.count
        failed = {launch.ray_node_type_name: launch.details or "" for launch in status.failed_launches}
        return Launches(coming, failed)

    def may_grow(self) -> bool:
        """Whether an autoscaler looks after the cluster: one that reports to it, or that of `ray up` on its head."""
        version = self._status().stats.autoscaler_version
        return version not in (None, "0") or self.most() is not None or _OF_RAY_UP.expanduser().is_file()

    @staticmethod
    def _status() -> ClusterStatus:
        return get_cluster_status(ray.get_runtime_context().gcs_address)


def wait_for_placement(
    cluster: ClusterConfig, tell: Callable[[str], None], *, grace_seconds: float = 0.0, room: Room | None = None
) -> int:
    """Waits until there is room for the least number of workers, and returns the number that there is room for.

    Args:
        cluster: what is asked for.
        tell: takes a line, when there is something to wait for.
        grace_seconds: for so long the most are waited for, before fewer are taken.
        room: None = in the cluster that this process is connected to.

    Raises:
        NoRoomError: there was none within --placement-timeout; one line with what is missing.
    """
    room = RayRoom() if room is None else room
    worker, (least, most) = worker_resources(cluster), cluster.workers
    began, told = time.monotonic(), None
    while True:
        waited = time.monotonic() - began
        num_workers = num_fitting(room.free(), worker, most)
        if num_workers < most and waited < grace_seconds:
            time.sleep(_GRACE_LOOK_SECONDS)
            continue
        wanted = max(least, num_workers)
        if room.can_hold(worker, wanted, min(_LOOK_SECONDS, cluster.placement_seconds)):
            if least < most:
                tell(f"{wanted} of --num-workers {cluster.workers} have room now")
            return wanted
        missing = _missing(worker, least, num_workers) + _growth(worker, room.most()) + _coming(room.launches())
        if waited > cluster.placement_seconds:
            raise NoRoomError(
                f"--placement-timeout {cluster.placement_timeout} is over without {missing}: add nodes, take a smaller "
                "--num-workers, or wait longer"
            )
        if missing != told:
            tell(f"waiting up to {cluster.placement_timeout} for {missing}")
            told = missing


def _missing(worker: Resources, least: int, num_workers: int) -> str:
    if num_workers >= least:
        return f"an answer of all nodes that should have room for {num_workers} worker(s)"
    return f"room for {least} worker(s) of {in_words(worker)} each (--num-workers), there is room for {num_workers}"


def _growth(worker: Resources, most: Resources | None) -> str:
    """What may still come, as the end of a line."""
    if most is None:
        return ""
    bounds = {name: bound for name in worker if (bound := most.get(name, 0.0)) < sys.maxsize}
    return f", and the autoscaler may bring the cluster to {in_words(bounds) if bounds else 'any size'}"


def _coming(launches: Launches) -> str:
    """What is on its way, as the end of a line."""
    coming = [f"{count} node(s) of type {name}" for name, count in sorted(launches.coming.items())]
    words = f", and the autoscaler is bringing {', '.join(coming)}" if coming else ""
    for name, reason in sorted(launches.failed.items()):
        words += (
            f", and the autoscaler could not bring nodes of type {name}: {' '.join(reason.split())[:_LONGEST_REASON]}"
        )
    return words


def num_fitting(nodes: Iterable[Resources], worker: Resources, most: int) -> int:
    """The number of workers that there is room for, up to a bound; a worker is on one node.

    Args:
        nodes: free resources of each.
        worker: resources of one, each above 0.
        most: the bound.
    """
    assert worker, "a worker takes something"
    assert all(amount > 0 for amount in worker.values()), worker
    return min(most, sum(min(int(node.get(name, 0) // worker[name]) for name in worker) for node in nodes))


def worker_resources(cluster: ClusterConfig) -> dict[str, float]:
    """Resources of one worker, by Ray's names."""
    return {"CPU": float(cluster.cpus_per_worker)} | ({"GPU": 1.0} if cluster.use_gpu else {})


def in_words(worker: Resources) -> str:
    """As "2 CPUs and 1 GPU"."""
    return " and ".join(f"{amount:g} {name}{'s' if amount > 1 else ''}" for name, amount in worker.items())
