"""Number of workers at a start: as many as fit into the cluster now, within the requested range.

Ray Train's elastic workers are not used: it grows and shrinks a run in the middle of its steps, by the cluster's totals
even if others use them, and retries after any failure. Here each start checks once, and the number stays until the
next start: a run that has lost workers grows again only when it starts again.
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
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
from ray.util import placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup

from inq_ray.files.shown import one_line
from inq_ray.training.config import ClusterConfig

# A lost worker frees its resources within seconds: until then the maximum is waited for.
GRACE_SECONDS = 5.0
# Time between checks. Resources that cannot be reserved in this time do not exist: a lost node stays listed for a
# while.
_LOOK_SECONDS = 5.0
_GRACE_LOOK_SECONDS = 0.1
# File that `ray up` leaves on the head, where jobs are driven.
_OF_RAY_UP = Path("~/ray_bootstrap_config.yaml")
_LONGEST_REASON = 200

Resources = Mapping[str, float]


class NoRoomError(ValueError):
    """The cluster has no room for the minimum number of workers."""


class Launches(NamedTuple):
    """Nodes that an autoscaler has requested, by the names of their types.

    Attributes:
        coming: Number of nodes on their way.
        failed: Why the last requests failed.
    """

    coming: Mapping[str, int] = {}
    failed: Mapping[str, str] = {}


class Room(Protocol):
    """Free resources of a cluster."""

    def free(self) -> list[Resources]:
        """Return the free resources of each node that is expected to be alive and to stay, by Ray's names."""
        ...

    def can_hold(self, worker: Resources, num_workers: int, seconds: float) -> bool:
        """Return whether this many workers could be reserved at once, within this time; nothing stays reserved."""
        ...

    def most(self) -> Resources | None:
        """Return the total resources that an autoscaler may provide; None if there is none, or none are reported."""
        ...

    def launches(self) -> Launches:
        """Return an autoscaler's report about nodes that are on their way, or failed."""
        ...


class RayRoom:
    """Free resources of the cluster that this process is connected to."""

    def free(self) -> list[Resources]:
        """See :class:`Room`; what this job's dead actors had reserved is freed first."""
        remove_orphans()
        free: dict[str, Resources] = available_resources_per_node()  # type: ignore[no-untyped-call]
        leaving = state.get_draining_nodes()
        return [resources for node, resources in free.items() if node not in leaving]

    def can_hold(self, worker: Resources, num_workers: int, seconds: float) -> bool:
        """See :class:`Room`; while it waits, a cluster that can grow sees the demand."""
        group = placement_group([dict(worker)] * num_workers, strategy="PACK")
        try:
            return bool(group.wait(seconds))
        finally:
            remove_placement_group(group)

    def most(self) -> Resources | None:
        """See :class:`Room`; Ray's own autoscalers do not report it, those of some platforms do."""
        most: dict[str, int] | None = state.get_max_resources_from_cluster_config()
        return most

    def launches(self) -> Launches:
        """See :class:`Room`; version 2 of the autoscaler reports it, version 1 does not."""
        status = self._status()
        coming = Counter(node.ray_node_type_name for node in status.pending_nodes)
        for launch in status.pending_launches:
            coming[launch.ray_node_type_name] += launch.count
        failed = {launch.ray_node_type_name: launch.details or "" for launch in status.failed_launches}
        return Launches(coming, failed)

    def may_grow(self) -> bool:
        """Return whether the cluster has an autoscaler: one that reports to it, or that of `ray up` on its head."""
        version = self._status().stats.autoscaler_version
        return version not in (None, "0") or self.most() is not None or _OF_RAY_UP.expanduser().is_file()

    @staticmethod
    def _status() -> ClusterStatus:
        return get_cluster_status(ray.get_runtime_context().gcs_address)


def remove_orphans() -> None:
    """Remove the placement groups of this job whose creator, an actor, is dead.

    Ray 2.60 keeps them until the job ends. Ray Train's own cleaner for a lost controller does not find its cluster if
    there are several on one machine.
    """
    job = ray.get_runtime_context().get_job_id()
    accessor = state._connect_and_get_accessor()  # noqa: SLF001, the public calls do not tell jobs
    for row in accessor.get_placement_group_table():
        group = PlacementGroupTableData.FromString(row)
        is_kept = group.is_detached or group.state == PlacementGroupTableData.REMOVED
        # Ray counts the actor of a group that a driver has created as dead.
        is_of_actor = not ray.ActorID(group.creator_actor_id).is_nil()
        if group.creator_job_id.hex() == job and is_of_actor and group.creator_actor_dead and not is_kept:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))


def wait_for_placement(
    cluster: ClusterConfig, tell: Callable[[str], None], *, grace_seconds: float = 0.0, room: Room | None = None
) -> int:
    """Wait until the minimum number of workers fits, and return the number that fits.

    Args:
        cluster: Requested workers.
        tell: Called with a line if there is something to wait for.
        grace_seconds: How long to wait for the maximum before using fewer.
        room: Free resources; None = those of the cluster that this process is connected to.

    Raises:
        NoRoomError: They did not fit within --placement-timeout; one line with what is missing.
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
                tell(f"{wanted} of --num-workers {cluster.workers} fit now")
            return wanted
        missing = _missing(worker, least, num_workers) + _growth(worker, room.most()) + _coming(room.launches())
        if waited > cluster.placement_seconds:
            raise NoRoomError(
                f"--placement-timeout {cluster.placement_timeout} has passed without {missing}: add nodes, use fewer "
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
    """Return what may still become available, as the end of a line."""
    if most is None:
        return ""
    bounds = {name: bound for name in worker if (bound := most.get(name, 0.0)) < sys.maxsize}
    return f", and the autoscaler may grow the cluster to {in_words(bounds) if bounds else 'any size'}"


def _coming(launches: Launches) -> str:
    """Return the nodes on their way, as the end of a line."""
    coming = [f"{count} node(s) of type {name}" for name, count in sorted(launches.coming.items())]
    words = f", and the autoscaler is starting {', '.join(coming)}" if coming else ""
    for name, reason in sorted(launches.failed.items()):
        words += f", and the autoscaler could not start nodes of type {name}: {one_line(reason, _LONGEST_REASON)}"
    return words


def num_fitting(nodes: Iterable[Resources], worker: Resources, most: int) -> int:
    """Return the number of workers that fit, up to a maximum; a worker is on one node.

    Args:
        nodes: Free resources of each node.
        worker: Resources of one worker, each above 0.
        most: Maximum number.
    """
    assert worker, "a worker needs some resources"
    assert all(amount > 0 for amount in worker.values()), worker
    return min(most, sum(min(int(node.get(name, 0) // worker[name]) for name in worker) for node in nodes))


def worker_resources(cluster: ClusterConfig) -> dict[str, float]:
    """Return the resources of one worker, by Ray's names."""
    return {"CPU": float(cluster.cpus_per_worker)} | ({"GPU": 1.0} if cluster.use_gpu else {})


def in_words(worker: Resources) -> str:
    """Return resources in words, such as "2 CPUs and 1 GPU"."""
    return " and ".join(f"{amount:g} {name}{'' if 0 < amount <= 1 else 's'}" for name, amount in worker.items())
