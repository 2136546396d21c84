"""The files for `ray up` fit Ray's own schema, and give the cluster a token."""

from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import REPO

FILES = sorted((REPO / "docker" / "ray_up").glob("*.yaml"))


def _validate(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does before it speaks to a cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(config)
    validate_config(prepared)
    return prepared


def test_there_is_one_for_each_cloud() -> None:
    assert [path.stem for path in FILES] == ["aws", "gcp"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_ray_takes_the_file(path: Any) -> None:
    config = _validate(yaml.safe_load(path.read_text()))
    assert config["provider"]["type"] == path.stem
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["gpu_spot"]["resources"]["GPU"] == 1
    assert "spot" in str(types["gpu_spot"]["node_config"]).lower()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_mistake_is_seen(path: Any) -> None:
    config = yaml.safe_load(path.read_text())
    config["idle_timeout_minute"] = 5
    with pytest.raises(jsonschema.ValidationError):
        _validate(config)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_node_has_the_token_from_a_file(path: Any) -> None:
    config = yaml.safe_load(path.read_text())
    assert config["file_mounts"] == {"/tmp/ray_token": "docker/secrets/ray_token"}
    assert {"--env=RAY_AUTH_MODE=token", "--env=RAY_AUTH_TOKEN_PATH=/tmp/ray_token"} <= set(
        config["docker"]["run_options"]
    )
    starts = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert all("--dashboard-host=127.0.0.1" in line for line in starts)
