"""The compose file is one that compose takes, and publishes nothing beyond this machine."""

import ipaddress
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from tests.conftest import REPO

FILE = REPO / "docker" / "compose.yaml"


def _interpolated(text: str) -> str:
    """The file with the defaults of its variables, as compose fills them in."""
    text = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", text)
    assert not re.search(r"(?<!\$)\$[\w{]", text), "a variable without a default"
    return text.replace("$$", "$")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    text = _interpolated(FILE.read_text())
    options = compose_spec.PyOptions(apply_merge=True)
    parsed = options.from_yaml(text)
    parsed.validate()
    merged: dict[str, Any] = yaml.safe_load(text)
    assert set(parsed.service_names()) == set(merged["services"])
    return merged


def test_a_mistake_is_seen() -> None:
    with pytest.raises(ValueError, match="many"):
        compose_spec.PyOptions(apply_merge=True).from_yaml(
            _interpolated(FILE.read_text()).replace("replicas: 2", "replicas: many")
        )


def test_nothing_is_published_beyond_this_machine(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8265:8265"]
    assert compose["networks"]["cluster"]["internal"] is True
    assert all("network_mode" not in service for service in compose["services"].values())


def _is_node(service: dict[str, Any]) -> bool:
    return str(service.get("command")).startswith("ray ")


def test_nodes_speak_to_each_other_on_the_network_of_the_workers(compose: dict[str, Any]) -> None:
    """On several networks Ray takes the address of the one that leads outside, which workers do not reach."""
    services = compose["services"]
    (shared,) = services["worker"]["networks"]
    (pool,) = compose["networks"][shared]["ipam"]["config"]
    fixed = services["head"]["networks"][shared]["ipv4_address"]
    assert ipaddress.ip_address(fixed) in ipaddress.ip_network(pool["subnet"])
    assert ipaddress.ip_network(pool["ip_range"]).subnet_of(ipaddress.ip_network(pool["subnet"]))
    assert ipaddress.ip_address(fixed) not in ipaddress.ip_network(pool["ip_range"]), "another may have it"
    for service in filter(_is_node, services.values()):
        flags = dict(word.partition("=")[::2] for word in service["command"].split())
        if len(service["networks"]) > 1:
            assert flags["--node-ip-address"] == service["networks"][shared]["ipv4_address"]
        if "--head" not in flags:
            assert flags["--address"] == f"{fixed}:6379"


def test_services_have_no_rights(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.get("privileged", False)
        assert service.get("cap_add", []) == (["DAC_OVERRIDE"] if service is compose["services"]["storage"] else [])
        assert not any(".sock" in volume for volume in service.get("volumes", []))


def test_every_node_has_the_token_from_a_file(compose: dict[str, Any]) -> None:
    nodes = list(filter(_is_node, compose["services"].values()))
    assert len(nodes) == 2
    for node in nodes:
        assert node["environment"]["RAY_AUTH_MODE"] == "token"
        assert node["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
        assert "ray_token" in node["secrets"]


def test_the_script_writes_every_secret(compose: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    for _ in range(2):  # the second time it leaves everything as it is
        subprocess.run([REPO / "docker" / "make-secrets", folder], check=True, capture_output=True, timeout=300)
        texts = {path.name: path.read_text() for path in folder.iterdir()}
        assert {f"secrets/{name}" for name in texts} == {secret["file"] for secret in compose["secrets"].values()}
        token = texts["ray_token"]
        assert re.fullmatch(r"[0-9a-f]{64}", token)
    (identity,) = json.loads(texts["s3_config"])["identities"]
    ((key, secret),) = [(pair["accessKey"], pair["secretKey"]) for pair in identity["credentials"]]
    assert f"aws_access_key_id = {key}\naws_secret_access_key = {secret}\n" in texts["s3_credentials"]
    assert [path.stat().st_mode & 0o077 for path in [folder, *folder.iterdir()]] == [0] * 4
    other = tmp_path / "other"
    subprocess.run([REPO / "docker" / "make-secrets", other], check=True, capture_output=True, timeout=300)
    assert (other / "ray_token").read_text() != token


def test_a_script_that_fails_leaves_no_half_secret(tmp_path: Path) -> None:
    """A bug once: an empty token stayed, as one that was there already."""
    (tmp_path / "od").write_text("#!/bin/sh\nprintf 12; exit 1\n")
    (tmp_path / "od").chmod(0o755)
    command = [REPO / "docker" / "make-secrets", tmp_path / "secrets"]
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(command, env=env, check=False, capture_output=True, timeout=300).returncode != 0
    assert [path.name for path in (tmp_path / "secrets").iterdir() if not path.name.startswith(".")] == []
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    names = {path.name for path in (tmp_path / "secrets").iterdir()}
    assert names == {"ray_token", "s3_credentials", "s3_config"}
    assert len((tmp_path / "secrets" / "ray_token").read_text()) == 64
