"""How many trials run at once."""

from collections.abc import Callable, Sequence
from typing import Any

import ray

from inq_ray.cluster.placement import RayRoom, Resources, in_words, num_fitting, wait_for_placement, worker_resources
from inq_ray.training.config import ClusterConfig

_MANY = 10**6


def count_slots(cluster: ClusterConfig, max_concurrent: int | None, tell: Callable[[str], None]) -> int:
    """Return how many trials may run at once, at most ``max_concurrent``.

    Where the cluster may grow, it is ``max_concurrent``: the trials that have no room yet make it grow.

    Args:
        cluster: of one trial.
        max_concurrent: None = as many as have room.
        tell: takes a line while room for the first trial is waited for.

    Raises:
        ValueError: not even one would ever have room, or came to it within --placement-timeout.
    """
    room = RayRoom()
    may_grow = room.may_grow()
    if may_grow:
        wait_for_placement(cluster, tell, room=room)  # that of one trial: workers may all be scaled down
    fitting = num_trials_at_once(cluster, _nodes(), room.most())
    if max_concurrent is None:
        return fitting
    return max_concurrent if may_grow else min(fitting, max_concurrent)


def is_run_by_trials(cluster: ClusterConfig) -> bool:
    """Return whether the process of a trial is its worker: it has one, on the only machine that there is.

    On several machines Ray Train's worker is another process, to be placed again where its machine is taken away.

    Args:
        cluster: of one trial.
    """
    return cluster.workers.most == 1 and len(_nodes()) == 1 and not RayRoom().may_grow()


def _nodes() -> list[Resources]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def num_trials_at_once(cluster: ClusterConfig, nodes: Sequence[Resources], most: Resources | None = None) -> int:
    """How many trials have room in a cluster at the same time, once an autoscaler has brought what it says it may.

    Args:
        cluster: of one trial.
        nodes: all resources of each node, by Ray's names.
        most: all resources to which an autoscaler may bring the cluster; None where there is none, or it does not say.
            How large its nodes would be is not known: trials that have no room after all wait.

    Raises:
        ValueError: not even one has; names what it needs and what there is.
    """
    worker, num_workers = worker_resources(cluster), cluster.workers.most
    num_here = num_fitting(nodes, worker, _MANY)
    num_slots = max(num_here, num_fitting([most], worker, _MANY) if most else 0)
    if num_slots < num_workers:
        there = ", ".join(f"{sum(node.get(name, 0) for node in nodes):g} {name}s" for name in worker)
        raise ValueError(
            f"a trial of {num_workers} worker(s) of {in_words(worker)} each would never have room: the nodes of the "
            f"cluster hold {num_here} such worker(s) ({there} on {len(nodes)} node(s))"
            f"{'' if most is None else f', and the autoscaler may bring it to {num_slots}'}; take a smaller "
            "--workers-per-trial"
        )
    return num_slots // num_workers
