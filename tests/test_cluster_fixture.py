"""The session's Ray cluster is what the tests on Ray take it for."""

import os
from pathlib import Path

import pytest

from tests.conftest import RayCluster

pytestmark = pytest.mark.ray


def test_it_is_on_loopback_has_four_cpus_and_leaves_the_home_alone(ray_cluster: RayCluster) -> None:
    import ray

    home = Path(os.environ["HOME"])
    assert ray.get(ray.remote(lambda: os.environ["HOME"]).remote()) == str(home)
    assert ray.cluster_resources()["CPU"] == 4
    assert ray_cluster.address.startswith("127.0.0.2:")
    assert list(home.iterdir()) == []
