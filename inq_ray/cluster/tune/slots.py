"""Number of concurrent trials."""

from collections.abc import Callable, Sequence
from typing import Any

import ray

from inq_ray.cluster.placement import RayRoom, Resources, in_words, num_fitting, wait_for_placement, worker_resources
from inq_ray.training.config import ClusterConfig

_MANY = 10**6


def count_slots(cluster: ClusterConfig, max_concurrent: int | None, tell: Callable[[str], None]) -> int:
    """Return the maximum number of concurrent trials, at most ``max_concurrent``.

    If the cluster may grow, it is ``max_concurrent``: trials that do not fit yet make it grow.

    Args:
        cluster: Workers of one trial.
        max_concurrent: None = as many as fit.
        tell: Called with a line while waiting for room for the first trial.

    Raises:
        ValueError: Not even one would ever fit, or did within --placement-timeout.
    """
    room = RayRoom()
    may_grow = room.may_grow()
    if may_grow:
        wait_for_placement(cluster, tell, room=room)  # for one trial: all nodes may be scaled down
    fitting = num_trials_at_once(cluster, _nodes(), room.most())
    if max_concurrent is None:
        return fitting
    return max_concurrent if may_grow else min(fitting, max_concurrent)


def is_run_by_trials(cluster: ClusterConfig) -> bool:
    """Return whether the process of a trial is its worker: trials have one worker, and the cluster one machine.

    On several machines Ray Train's worker is another process, so that it can be placed again if its machine is lost.

    Args:
        cluster: Workers of one trial.
    """
    return cluster.workers.most == 1 and len(_nodes()) == 1 and not RayRoom().may_grow()


def _nodes() -> list[Resources]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def num_trials_at_once(cluster: ClusterConfig, nodes: Sequence[Resources], most: Resources | None = None) -> int:
    """Return how many trials fit into a cluster at the same time, at the maximum size of its autoscaler.

    Args:
        cluster: Workers of one trial.
        nodes: Total resources of each node, by Ray's names.
        most: Total resources that an autoscaler may provide; None if there is none, or it does not report them. The
            size of its nodes is unknown: trials that do not fit after all wait.

    Raises:
        ValueError: Not even one fits; names what it needs and what there is.
    """
    worker, num_workers = worker_resources(cluster), cluster.workers.most
    num_here = num_fitting(nodes, worker, _MANY)
    num_slots = max(num_here, num_fitting([most], worker, _MANY) if most else 0)
    if num_slots < num_workers:
        there = ", ".join(in_words({name: sum(node.get(name, 0) for node in nodes)}) for name in worker)
        raise ValueError(
            f"a trial of {num_workers} worker(s) of {in_words(worker)} each would never fit: the nodes of the "
            f"cluster have room for {num_here} such worker(s) ({there} on {len(nodes)} node(s))"
            f"{'' if most is None else f', and the autoscaler may provide room for {num_slots}'}; use a smaller "
            "--workers-per-trial"
        )
    return num_slots // num_workers
