"""The sbatch script on a Slurm of three scripts: it starts Ray on every node, runs the job, and ends all of it."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import REPO

SCRIPT = REPO / "docker" / "slurm" / "inq_ray.sbatch"

# Every fake writes what it was asked, with its own process's number; `srun` is the node that it is sent to.
_FAKES = {
    "scontrol": 'printf "node1\\nnode2\\nnode3\\n"',
    "srun": """
while [[ ${1:-} == --* ]]; do [[ $1 != --nodelist=* ]] || export NODE=${1#*=}; shift; done
exec "$@"
""",
    # As Debian has its own name in /etc/hosts, and a node a name for IPv6, its network, and a bridge of containers.
    "hostname": """
case $1 in
--ip-address) echo 127.0.1.1 ;;
--all-ip-addresses) echo "${ADDRESSES:-fe80::1 127.0.1.1 10.0.0.1${NODE#node} 172.17.0.1} " ;;
esac
""",
    "ray": """
trap 'echo "$NODE ended" >>"$CALLS"; exit 0' TERM
drain=${RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S:-30}
echo "$NODE $RAY_AUTH_MODE $RAY_AUTH_TOKEN $RAY_TRAIN_ENABLE_STATE_TRACKING $drain ray $*" >>"$CALLS"
[[ $1 == start ]] || exit 0
while :; do sleep 0.05; done
""",
    "python": """
trap 'echo "job told" >>"$CALLS"; exit 3' TERM
until [[ $(grep -c ' ray start ' "$CALLS") == 3 ]]; do sleep 0.05; done # a run waits for its nodes
echo "$NODE $RAY_ADDRESS python $*" >>"$CALLS"
[[ -z ${JOB_WAITS:-} ]] || while :; do sleep 0.05; done
exit "${JOB_STATUS:-0}"
""",
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in _FAKES.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\nset -u\n{text}")
        (folder / name).chmod(0o755)
    (tmp_path / "calls").touch()
    return {
        "CALLS": str(tmp_path / "calls"),
        "HOME": str(tmp_path),
        "PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "SLURM_CPUS_ON_NODE": "8",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "node[1-3]",
    }


def _calls(slurm: dict[str, str]) -> list[str]:
    return Path(slurm["CALLS"]).read_text().splitlines()


def _run(slurm: dict[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *flags], check=False, env=slurm, capture_output=True, text=True, timeout=300, cwd=REPO
    )


def test_every_node_joins_and_the_job_runs_on_the_first(slurm: dict[str, str]) -> None:
    result = _run(slurm, "--name", "a run", "--num-workers", "3")
    assert result.returncode == 0, result.stderr
    starts = [line for line in _calls(slurm) if " ray start " in line]
    assert sorted(line.split()[0] for line in starts) == ["node1", "node2", "node3"]
    (head,) = [line for line in starts if "--head" in line]
    assert "--node-ip-address=10.0.0.11 --port=34220 --dashboard-host=127.0.0.1" in head
    assert all("--num-cpus=8" in line for line in starts)
    for line in starts:
        if line != head:
            assert f"--address=10.0.0.11:34220 --node-ip-address=10.0.0.1{line[len('node')]}" in line
    assert [line for line in _calls(slurm) if " python " in line] == [
        "node1 10.0.0.11:34220 python jobs/quantize_imagenet.py --placement-timeout 5m --name a run --num-workers 3"
    ]


def test_nodes_have_one_token_that_no_command_line_shows(slurm: dict[str, str]) -> None:
    tokens = set()
    for _ in range(2):
        Path(slurm["CALLS"]).write_text("")
        assert _run(slurm).returncode == 0
        ((mode, token),) = {tuple(line.split()[1:3]) for line in _calls(slurm) if " ray start " in line}
        assert mode == "token"
        assert len(token) == 64
        assert not any(token in line.partition(" ray ")[2] for line in _calls(slurm))
        tokens.add(token)
    assert len(tokens) == 2


def test_the_dashboard_shows_training_runs(slurm: dict[str, str]) -> None:
    assert _run(slurm).returncode == 0
    assert {line.split()[3] for line in _calls(slurm) if " ray start " in line} == {"1"}


def test_a_node_that_is_told_to_go_waits_for_a_checkpoint_within_the_notice(slurm: dict[str, str]) -> None:
    (notice,) = re.findall(r"^#SBATCH --signal=B:TERM@(\d+)$", SCRIPT.read_text(), re.MULTILINE)
    assert _run(slurm).returncode == 0
    (seconds,) = {line.split()[4] for line in _calls(slurm) if " ray start " in line}
    assert 30 < float(seconds) < float(notice)


@pytest.mark.parametrize("addresses", ["127.0.1.1 ::1 fe80::1", " "])
def test_a_node_without_an_address_ends_it(slurm: dict[str, str], addresses: str) -> None:
    result = _run(slurm | {"ADDRESSES": addresses})
    assert result.returncode == 1
    assert result.stderr == "inq_ray.sbatch: node1 has no IPv4 address but of its loopback interface\n"
    assert _calls(slurm) == []


def test_a_worker_without_an_address_ends_it_and_its_head(slurm: dict[str, str]) -> None:
    fake = Path(slurm["HOME"]) / "bin" / "hostname"
    fake.write_text('#!/usr/bin/env bash\n[[ $NODE != node3 ]] && echo "10.0.0.1${NODE#node}"\n')
    result = _run(slurm)
    assert result.returncode == 1
    assert "node3 has no IPv4 address" in result.stderr
    assert not any(" python " in line for line in _calls(slurm))
    assert "node1 ended" in _calls(slurm)


def test_the_status_is_the_jobs_and_every_node_ends_the_head_last(slurm: dict[str, str]) -> None:
    assert _run(slurm | {"JOB_STATUS": "2"}).returncode == 2
    ended = [line for line in _calls(slurm) if line.endswith("ended")]
    assert sorted(ended) == [f"node{n} ended" for n in (1, 2, 3)]
    assert ended[-1] == "node1 ended"


def test_the_job_is_told_when_slurm_takes_the_nodes_away(slurm: dict[str, str]) -> None:
    with subprocess.Popen([SCRIPT], env=slurm | {"JOB_WAITS": "1"}, cwd=REPO) as process:
        deadline = time.monotonic() + 300
        while not any(" python " in line for line in _calls(slurm)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 3
    told = _calls(slurm).index("job told")
    assert all(_calls(slurm).index(f"node{n} ended") > told for n in (1, 2, 3))


def test_an_image_is_put_before_every_command(slurm: dict[str, str]) -> None:
    wrapper = Path(slurm["HOME"]) / "bin" / "apptainer"
    wrapper.write_text('#!/usr/bin/env bash\necho "apptainer $2 $3" >>"$CALLS"\nshift 2\nexec "$@"\n')
    wrapper.chmod(0o755)
    assert _run(slurm | {"INQ_RAY_RUN": "apptainer exec inq_ray.sif"}).returncode == 0
    wrapped = [line for line in _calls(slurm) if line.startswith("apptainer inq_ray.sif")]
    assert {line.split()[2] for line in wrapped} >= {"ray", "python"}


def test_a_head_that_does_not_start_ends_it(slurm: dict[str, str]) -> None:
    fake = Path(slurm["HOME"]) / "bin"
    (fake / "ray").write_text("#!/usr/bin/env bash\nexit 1\n")
    (fake / "sleep").write_text("#!/usr/bin/env bash\n")
    (fake / "sleep").chmod(0o755)
    result = _run(slurm)
    assert result.returncode == 1
    assert "Ray did not start on node1" in result.stderr
    assert not any(" python " in line for line in _calls(slurm))
