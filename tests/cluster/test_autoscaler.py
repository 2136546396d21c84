"""A real autoscaler, which starts nodes for what a run waits for."""

import os
import subprocess
import sys
import tempfile

import pytest

from tests.conftest import REPO

pytestmark = [pytest.mark.ray, pytest.mark.long]


@pytest.mark.skipif(subprocess.run(["unshare", "-rn", "true"], check=False).returncode != 0, reason="needs namespaces")
def test_a_run_waits_for_the_nodes_that_its_own_demand_brings() -> None:
    """The head has no CPU: what `wait_for_placement` asks for makes the autoscaler start two nodes of one."""
    # The path of a socket has 107 bytes at most, which pytest's own folders would be too long for.
    with tempfile.TemporaryDirectory(prefix="inq-", ignore_cleanup_errors=True) as folder:
        ran = subprocess.run(
            ["unshare", "-rn", sys.executable, "-m", "tests.cluster.autoscaled", folder],
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
