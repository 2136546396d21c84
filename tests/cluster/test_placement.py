"""How many workers a start gets, without a cluster."""

import dataclasses
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.cluster import placement
from inq_ray.cluster.placement import (
    Launches,
    NoRoomError,
    Resources,
    num_fitting,
    wait_for_placement,
    worker_resources,
)
from inq_ray.training.config import ClusterConfig
from tests.clock import Clock

SILENT = list[str]().append


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(placement, "time", clock)
    return clock


@dataclasses.dataclass
class Cluster:
    """Nodes with so many free CPUs at each look; those that are listed and gone hold nothing."""

    looks: list[list[int]]
    num_gone: int = 0
    limit: Resources | None = None
    said: Launches = dataclasses.field(default_factory=Launches)
    asked: list[int] = dataclasses.field(default_factory=list)

    def free(self) -> list[Resources]:
        nodes = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return [{"CPU": cpus, "memory": 1e9, "node:127.0.0.2": 1.0} for cpus in nodes]

    def can_hold(self, worker: Resources, num_workers: int, seconds: float) -> bool:
        self.asked.append(num_workers)
        placement.time.sleep(seconds)
        if self.num_gone:
            self.num_gone -= 1
            return False
        return num_fitting(self.free(), worker, num_workers) == num_workers

    def most(self) -> Resources | None:
        return self.limit

    def launches(self) -> Launches:
        return self.said


def asked_for(workers: int | str, **fields: object) -> ClusterConfig:
    return ClusterConfig(num_workers=workers, **fields)  # type: ignore[arg-type]


@given(
    st.lists(st.dictionaries(st.sampled_from(["CPU", "GPU", "memory"]), st.integers(0, 9)), max_size=6),
    st.integers(1, 3),
    st.booleans(),
    st.integers(1, 12),
)
def test_workers_fit_one_after_the_other(nodes: list[dict[str, int]], cpus: int, has_gpu: bool, most: int) -> None:
    worker = {"CPU": float(cpus)} | ({"GPU": 1.0} if has_gpu else {})
    free = [dict(node) for node in nodes]
    expected = 0
    for node in free:
        while expected < most and all(node.get(name, 0) >= amount for name, amount in worker.items()):
            for name, amount in worker.items():
                node[name] -= int(amount)
            expected += 1
    assert num_fitting(nodes, worker, most) == expected


def test_a_worker_is_on_one_node() -> None:
    assert num_fitting([{"CPU": 3}, {"CPU": 3}], {"CPU": 2.0}, 8) == 2
    assert num_fitting([{"CPU": 8}, {"CPU": 8, "GPU": 2}], {"CPU": 1.0, "GPU": 1.0}, 8) == 2
    assert worker_resources(ClusterConfig(use_gpu=True, cpus_per_worker=4)) == {"CPU": 4, "GPU": 1}


@pytest.mark.parametrize(
    ("workers", "nodes", "expected"), [(2, [4], 2), ("1..8", [2, 1], 3), ("2..3", [4, 4], 3), ("2..8", [1, 1], 2)]
)
def test_as_many_as_fit_within_the_range(workers: int | str, nodes: list[int], expected: int) -> None:
    told: list[str] = []
    assert wait_for_placement(asked_for(workers), told.append, room=Cluster([nodes])) == expected
    assert told == ([f"{expected} of --num-workers {workers} fit now"] if isinstance(workers, str) else [])


def test_the_least_number_is_waited_for_and_said_once() -> None:
    told: list[str] = []
    room = Cluster([[1], [1], [1], [1], [1, 1]])
    assert wait_for_placement(asked_for(2), told.append, room=room) == 2
    assert told == [
        "waiting up to 10m for room for 2 worker(s) of 1 CPU each (--num-workers), there is room for 1",
    ]
    assert set(room.asked) == {2}


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"CPU": 16, "memory": 1e9}, ", and the autoscaler may grow the cluster to 16 CPUs"),
        ({"GPU": 8}, ", and the autoscaler may grow the cluster to 0 CPUs"),
        ({"CPU": sys.maxsize}, ", and the autoscaler may grow the cluster to any size"),
        (None, ""),
    ],
)
def test_what_an_autoscaler_may_bring_is_said(limit: Resources | None, words: str) -> None:
    told: list[str] = []
    wait_for_placement(asked_for(2), told.append, room=Cluster([[1], [1], [1], [1], [1, 1]], limit=limit))
    assert told == [
        f"waiting up to 10m for room for 2 worker(s) of 1 CPU each (--num-workers), there is room for 1{words}",
    ]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            Launches({"gpu": 2, "cpu": 1}),
            ", and the autoscaler is starting 1 node(s) of type cpu, 2 node(s) of type gpu",
        ),
        (Launches({}, {"gpu": "no\ncapacity"}), ", and the autoscaler could not start nodes of type gpu: no capacity"),
    ],
)
def test_nodes_that_are_coming_are_said(said: Launches, words: str) -> None:
    told: list[str] = []
    wait_for_placement(asked_for(2), told.append, room=Cluster([[1], [1], [1, 1]], said=said))
    assert told == [
        f"waiting up to 10m for room for 2 worker(s) of 1 CPU each (--num-workers), there is room for 1{words}",
    ]


def test_a_node_that_is_listed_and_gone_is_waited_for() -> None:
    """It is listed for some looks: fewer are taken once it no longer is, and not before."""
    told: list[str] = []
    room = Cluster([[1, 1], [1, 1], [1]], num_gone=2)
    assert wait_for_placement(asked_for("1..2"), told.append, room=room) == 1
    assert room.asked == [2, 2, 1]
    assert told == [
        "waiting up to 10m for an answer of all nodes that should have room for 2 worker(s)",
        "1 of --num-workers 1..2 fit now",
    ]


def test_what_lost_workers_give_back_is_waited_for_before_fewer_are_taken(clock: Clock) -> None:
    looks = [[1], [1], [3]]
    assert wait_for_placement(asked_for("1..3"), SILENT, grace_seconds=0.3, room=Cluster(list(looks))) == 3
    assert wait_for_placement(asked_for("1..3"), SILENT, room=Cluster(list(looks))) == 1
    began = clock.now
    assert wait_for_placement(asked_for("1..3"), SILENT, grace_seconds=0.3, room=Cluster([[2]])) == 2
    assert clock.now - began >= 0.3


def test_the_wait_has_a_bound_and_ends_in_one_line() -> None:
    room = Cluster([[1, 0]])
    with pytest.raises(NoRoomError) as ended:
        wait_for_placement(asked_for("2..8", placement_timeout="1s"), SILENT, room=room)
    assert str(ended.value) == (
        "--placement-timeout 1s has passed without room for 2 worker(s) of 1 CPU each (--num-workers), there is room "
        "for 1: add nodes, use fewer --num-workers, or wait longer"
    )
