"""The files for `ray up` fit Ray's own schema, and Ray's own code makes of them what a machine needs."""

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import REPO

FILES = sorted((REPO / "docker" / "ray_up").glob("*.yaml"))

each_cloud = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def _validate(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does before it speaks to a cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(config)
    validate_config(prepared)
    return prepared


def _prepared(path: Path) -> dict[str, Any]:
    return _validate(yaml.safe_load(path.read_text()))


def _container(path: Path, kind: str) -> list[str]:
    """The words with which a host of that kind, `head` or `worker`, starts its container."""
    from ray.autoscaler._private.docker import docker_start_cmds

    config = _prepared(path)
    docker = config["docker"]
    options = docker["run_options"] + docker.get(f"{kind}_run_options", [])
    mounts, name = config["file_mounts"], docker["container_name"]
    line = docker_start_cmds(
        "ubuntu", docker["image"], mounts, name, options, config["cluster_name"], "/tmp", "printf '%s\\n'"
    )
    return subprocess.run(
        ["bash", "-c", line], check=True, capture_output=True, text=True, timeout=300
    ).stdout.splitlines()


def test_there_is_one_for_each_cloud() -> None:
    assert [path.stem for path in FILES] == ["aws", "gcp"]


@each_cloud
def test_ray_takes_the_file(path: Path) -> None:
    config = _prepared(path)
    assert config["provider"]["type"] == path.stem
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["gpu_spot"]["resources"]["GPU"] == 1
    assert "spot" in str(types["gpu_spot"]["node_config"]).lower()


@each_cloud
def test_a_mistake_is_seen(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    config["idle_timeout_minute"] = 5
    with pytest.raises(jsonschema.ValidationError):
        _validate(config)


@each_cloud
def test_every_node_has_the_token_from_a_file(path: Path) -> None:
    config = _prepared(path)
    assert config["file_mounts"] == {"/tmp/ray_token": "docker/secrets/ray_token"}
    for kind in ("head", "worker"):
        assert {"--env=RAY_AUTH_MODE=token", "--env=RAY_AUTH_TOKEN_PATH=/tmp/ray_token"} <= set(_container(path, kind))
    (start,) = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in start


@each_cloud
def test_containers_run_as_the_user_who_owns_the_token(path: Path) -> None:
    """Ray copies the token to the host with its mode, 600, as the user of SSH."""
    for kind in ("head", "worker"):
        assert f"--user={os.getuid()}:0" in _container(path, kind)
    # ssh, by which the head brings workers, ends where its user has no name.
    assert "--volume=/etc/passwd:/etc/passwd:ro" in _container(path, "head")


@each_cloud
def test_nothing_is_installed_on_a_node(path: Path) -> None:
    """What Ray adds where a file says nothing of set-up: its newest wheel, and an old SDK."""
    config = _prepared(path)
    assert "pip install" not in yaml.safe_dump(config)
    assert config["head_setup_commands"] == config["worker_setup_commands"] == []
    silent = yaml.safe_load(path.read_text())
    del silent["setup_commands"], silent["head_setup_commands"]
    assert yaml.safe_dump(_validate(silent)).count("pip install") > 1


@each_cloud
def test_the_head_can_bring_workers(path: Path) -> None:
    """The image, as the file says to build it, has ssh, and the extra with what Ray imports for that cloud."""
    (build,) = re.findall(r"^#\s+(make image .*)$", path.read_text().replace("\\\n#", ""), re.MULTILINE)
    variables = dict(word.partition("=")[::2] for word in shlex.split(build)[2:])
    assert _prepared(path)["docker"]["image"] == f"REGISTRY/{variables['IMAGE']}"
    assert variables["VARIANT"] == "cuda"
    flags = shlex.split(variables["ARGS"])
    assert flags[::2] == ["--build-arg"] * 2
    arguments = dict(flag.partition("=")[::2] for flag in flags[1::2])
    assert arguments == {"EXTRAS": f"demo timm {path.stem}", "PACKAGES": "openssh-client"}
    extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(arguments["EXTRAS"].split()) <= extras.keys()
    dockerfile = (REPO / "docker" / "Dockerfile").read_text()
    assert {f"ARG {name}=" for name in arguments} <= {line[: line.find("=") + 1] for line in dockerfile.splitlines()}


@each_cloud
def test_workers_see_their_gpus(path: Path) -> None:
    """NVIDIA's runtime gives a container none where neither the image nor its environment asks for any."""
    gpu = {"--env=NVIDIA_VISIBLE_DEVICES=all", "--env=NVIDIA_DRIVER_CAPABILITIES=compute,utility"}
    assert gpu <= set(_container(path, "worker"))
    assert not gpu & set(_container(path, "head"))


@each_cloud
def test_every_node_sees_the_results(path: Path, tmp_path: Path) -> None:
    config = _prepared(path)
    for kind in ("head", "worker"):
        assert "--volume=/results:/results" in _container(path, kind)
    calls = tmp_path / "calls"
    for name, text in {"sudo": f'echo "$*" >>{calls}', "mountpoint": f"grep -q ^mount {calls}"}.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    for _ in range(2):  # a machine that is set up a second time is mounted already
        for command in config["initialization_commands"]:
            subprocess.run(["bash", "-c", command], check=True, env=env, timeout=300)
    mounts = [line for line in calls.read_text().splitlines() if line.startswith("mount ")]
    assert mounts == ["mount -t nfs NFS_SERVER:NFS_FOLDER /results"]
    assert f"chown {os.getuid()} /results" in calls.read_text()
