"""A head without CPUs whose autoscaler starts nodes of one CPU; run as a program, on a network that has only itself.

Ray's fake provider starts them as processes of this machine, at the address that the machine has: in a network
namespace of its own that is the loopback interface.
"""

import fcntl
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

_HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"  # which Ray's fake provider counts on from
_PORT = 6379
_UP_AND_RUNNING = 0x1 | 0x40
_SIOCSIFFLAGS = 0x8914
_LISTS = [
    "cluster_synced_files",
    "head_setup_commands",
    "head_start_ray_commands",
    "initialization_commands",
    "rsync_exclude",
    "rsync_filter",
    "setup_commands",
    "worker_setup_commands",
    "worker_start_ray_commands",
]
_CONFIG: dict[str, object] = {
    "cluster_name": "fake",
    "max_workers": 2,
    "idle_timeout_minutes": 5,
    # Not by its own type: its default configuration is not in Ray's wheel.
    "provider": {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "launch_multiple": True,
        "head_node_id": _HEAD_ID,
    },
    "head_node_type": "ray.head.default",
    # What the autoscaler takes for granted, and this provider has no use for.
    **{name: [] for name in _LISTS},
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "small": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
}


def main(folder: Path) -> None:
    """Starts the cluster, waits for room for two workers, and says what `wait_for_placement` says."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _UP_AND_RUNNING))
    config = folder / "autoscaling.json"
    config.write_text(json.dumps(_CONFIG))
    os.environ |= {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
        "RAY_FAKE_CLUSTER": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
        "RAY_TMPDIR": str(folder),
        "RAY_enable_autoscaler_v2": "1",
    }
    command = ["ray", "start", "--head", "--block", f"--port={_PORT}", "--num-cpus=0", "--include-dashboard=false"]
    options = ["--disable-usage-stats", "--object-store-memory=100000000", f"--autoscaling-config={config}"]
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(
            [Path(sys.executable).with_name(command[0]), *command[1:], *options], stdout=log, stderr=log
        )
    try:
        _place(head)
    except AssertionError:
        print((folder / "head.log").read_text()[-2000:], file=sys.stderr)
        raise
    finally:
        head.terminate()
        head.wait(60)


def _place(head: subprocess.Popen[bytes]) -> None:
    import ray

    from inq_ray.cluster import placement
    from inq_ray.training.config import ClusterConfig

    deadline = time.monotonic() + 300
    while not _answers():
        assert head.poll() is None, "the head has ended"
        assert time.monotonic() < deadline, "the head does not answer"
        time.sleep(0.5)
    ray.init(f"127.0.0.1:{_PORT}", log_to_driver=False, logging_level="ERROR")
    placement._LOOK_SECONDS = 1.0  # so that something is said before the nodes are there
    room = placement.RayRoom()
    while not room.may_grow():
        assert time.monotonic() < deadline, "the autoscaler did not report"
        time.sleep(0.5)
    print(
        "placed", placement.wait_for_placement(ClusterConfig(num_workers=2, placement_timeout="3m"), print, room=room)
    )
    ray.shutdown()


def _answers() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", _PORT)) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
