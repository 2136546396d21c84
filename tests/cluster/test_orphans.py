"""What a killed actor had reserved is free again."""

import time
from typing import Any

import pytest
import ray
from ray.util import placement_group, remove_placement_group

from inq_ray.cluster.placement import RayRoom
from tests.conftest import RayCluster

pytestmark = pytest.mark.ray


class Controller:
    """Reserves two CPUs, as Ray Train's controller does."""

    def reserve(self) -> bool:
        return bool(placement_group([{"CPU": 1}] * 2).wait(300))


def _reserver() -> Any:
    controller: Any = ray.remote(num_cpus=0)(Controller).remote()
    assert ray.get(controller.reserve.remote(), timeout=300)
    return controller


def _free() -> float:
    return sum(node.get("CPU", 0.0) for node in RayRoom().free())


def _wait_for(num_cpus: float) -> None:
    deadline = time.monotonic() + 300
    while _free() != num_cpus:
        assert time.monotonic() < deadline, f"{_free()} CPUs are free, not {num_cpus}"
        time.sleep(0.1)


def test_the_placement_group_of_a_dead_actor_is_removed_and_no_other(ray_cluster: RayCluster) -> None:
    """A bug once: the run that lost Ray Train's controller kept its CPUs, and waited for room for the next one."""
    _wait_for(4)
    own = placement_group([{"CPU": 1}])
    assert own.wait(300)
    controller = _reserver()
    _wait_for(1)
    ray.kill(controller)
    _wait_for(3)
    remove_placement_group(own)
    _wait_for(4)
