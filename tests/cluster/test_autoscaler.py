"""A real autoscaler, which starts nodes for what a run waits for."""

import os
import subprocess
import sys
import tempfile

import pytest

from tests.conftest import REPO

pytestmark = [pytest.mark.ray, pytest.mark.long]


# A network and processes of its own: Ray leaves some of them behind when a node ends, which end with the namespace.
_UNSHARE = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


@pytest.mark.skipif(subprocess.run([*_UNSHARE, "true"], check=False).returncode != 0, reason="needs namespaces")
def test_a_run_waits_for_the_nodes_that_its_own_demand_brings() -> None:
    """The head has no CPU: what `wait_for_placement` asks for makes the autoscaler start two nodes of one."""
    # The path of a socket has 107 bytes at most, which pytest's own folders would be too long for.
    with tempfile.TemporaryDirectory(prefix="inq-", ignore_cleanup_errors=True) as folder:
        ran = subprocess.run(
            [*_UNSHARE, sys.executable, "-m", "tests.cluster.autoscaled", folder],
            check=False,
            cwd=REPO,
            env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            capture_output=True,
            text=True,
            timeout=900,
        )
    assert ran.returncode == 0, ran.stderr[-2000:]
    *waited, last = ran.stdout.splitlines()
    assert last == "placed 2"
    # It may all be quick; and what is said first is that nothing is there.
    assert all(line.startswith("waiting up to 3m for room for 2 worker(s) of 1 CPU each") for line in waited)
