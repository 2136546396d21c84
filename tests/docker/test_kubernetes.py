"""The Kubernetes files are ones that a cluster would take, and let nobody in."""

import copy
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import REPO
from tests.docker.kuberay import definition, pod_templates, validate

FOLDER = REPO / "docker" / "kubernetes"
OVERLAYS = ("overlays/cpu", "overlays/gpu", "overlays/spot")

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl, for its kustomize")


@cache
def _built(name: str) -> list[dict[str, Any]]:
    command = ["kubectl", "kustomize", str(FOLDER / name)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


def build(name: str) -> list[dict[str, Any]]:
    return copy.deepcopy(_built(name))


def _one(resources: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    of_kind = [resource for resource in resources if resource["kind"] == kind]
    (found,) = [resource for resource in of_kind if name in (None, resource["metadata"]["name"])]
    return found


@pytest.mark.parametrize("name", [*OVERLAYS, "job"])
def test_every_resource_fits_its_schema(name: str) -> None:
    resources = build(name)
    assert resources
    for resource in resources:
        validate(resource)


@pytest.mark.parametrize("name", [*OVERLAYS, "job"])
def test_every_resource_fits_kuberays_own_definition(name: str, shared_data: Path) -> None:
    of_kuberay = [resource for resource in build(name) if resource["kind"].startswith("Ray")]
    assert of_kuberay
    for resource in of_kuberay:
        definition(shared_data / "kuberay", resource["kind"]).validate(resource)


MISTAKES = pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(rayversion="2.60.0"),
        lambda spec: spec["authOptions"].update(mode="none"),
        lambda spec: spec["workerGroupSpecs"][0].update(maxReplicas="8"),
        lambda spec: spec["workerGroupSpecs"][0]["template"]["spec"].update(nodeSelectors={}),
        lambda spec: spec["headGroupSpec"]["template"]["spec"]["containers"][0].pop("name"),
    ],
)


@MISTAKES
def test_kuberays_own_definition_sees_mistakes(spoil: Any, shared_data: Path) -> None:
    cluster = _one(build("overlays/cpu"), "RayCluster")
    spoil(cluster["spec"])
    with pytest.raises(jsonschema.ValidationError):
        definition(shared_data / "kuberay", "RayCluster").validate(cluster)


@MISTAKES
def test_the_schemas_see_mistakes(spoil: Any) -> None:
    cluster = _one(build("overlays/cpu"), "RayCluster")
    spoil(cluster["spec"])
    with pytest.raises(jsonschema.ValidationError):
        validate(cluster)


@pytest.mark.parametrize("name", [*OVERLAYS, "job"])
def test_pods_have_no_rights(name: str) -> None:
    templates = [
        template
        for resource in build(name)
        if resource["apiVersion"] == "ray.io/v1"
        for template in pod_templates(resource)
    ]
    assert templates
    for template in templates:
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        assert template["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in template["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"requests", "limits"} <= container["resources"].keys()
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]


@pytest.mark.parametrize("name", OVERLAYS)
def test_nobody_gets_in_without_the_token(name: str) -> None:
    resources = build(name)
    spec = _one(resources, "RayCluster")["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert {resource["kind"] for resource in resources} == {"NetworkPolicy", "PersistentVolumeClaim", "RayCluster"}
    cluster = _one(resources, "NetworkPolicy", "inq-ray")["spec"]
    assert cluster["podSelector"] == {"matchLabels": {"ray.io/cluster": "inq-ray"}}
    assert cluster["policyTypes"] == ["Ingress", "Egress"]
    for rule in cluster["ingress"]:
        assert rule["from"]
        assert all("podSelector" in peer for peer in rule["from"])
    open_to_all = [rule for rule in cluster["ingress"] if "ports" not in rule]
    assert [rule["from"] for rule in open_to_all] == [[{"podSelector": cluster["podSelector"]}]]


@pytest.mark.parametrize("name", OVERLAYS)
def test_prometheus_gets_in_to_the_metrics_and_to_nothing_else(name: str) -> None:
    from ray.autoscaler._private.constants import AUTOSCALER_METRIC_PORT
    from ray.dashboard.consts import DASHBOARD_METRIC_PORT

    resources = build(name)
    spec = _one(resources, "RayCluster")["spec"]
    policy = _one(resources, "NetworkPolicy", "inq-ray")["spec"]
    scrapers = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"inq-ray/scrapes": "true"}}}
    (rule,) = [rule for rule in policy["ingress"] if scrapers in rule["from"]]
    let_in = {port["port"] for port in rule["ports"]}
    assert let_in == {8080, AUTOSCALER_METRIC_PORT, DASHBOARD_METRIC_PORT}
    head, worker = (
        {port["containerPort"] for port in template["spec"]["containers"][0]["ports"] if "metrics" in port["name"]}
        for template in (spec["headGroupSpec"]["template"], spec["workerGroupSpecs"][0]["template"])
    )
    assert (head, worker) == (let_in, {8080})


@pytest.mark.parametrize("name", ["inq-ray", "inq-ray-submits"])
def test_names_are_looked_up_at_the_clusters_servers_and_at_their_caches(name: str) -> None:
    policy = _one(build("overlays/cpu"), "NetworkPolicy", name)["spec"]
    (rule,) = [rule for rule in policy["egress"] if {"port": 53, "protocol": "UDP"} in rule.get("ports", [])]
    assert {(port["port"], port["protocol"]) for port in rule["ports"]} == {
        (port, protocol) for port in (53, 5353) for protocol in ("TCP", "UDP")
    }
    servers = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    assert servers in rule["to"]
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in rule["to"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_workers_come_and_go(name: str) -> None:
    spec = _one(build(name), "RayCluster")["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (group,) = spec["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, 8)
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) == (name != "overlays/cpu")


@pytest.mark.parametrize("name", OVERLAYS)
def test_workers_are_told_before_they_go(name: str) -> None:
    """SIGTERM makes Ray drain a node for so long, and Kubernetes kills it when the grace is over."""
    from ray._private import ray_constants

    variable = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    assert hasattr(ray_constants, variable)
    pod = _one(build(name), "RayCluster")["spec"]["workerGroupSpecs"][0]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    seconds = float(environment[variable])
    assert ray_constants.RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S < seconds < pod["terminationGracePeriodSeconds"]
    assert "lifecycle" not in container


def test_spot_workers_are_on_spot_machines() -> None:
    spec = _one(build("overlays/spot"), "RayCluster")["spec"]
    terms = spec["workerGroupSpecs"][0]["template"]["spec"]["affinity"]["nodeAffinity"]
    assert "spot" in str(terms["requiredDuringSchedulingIgnoredDuringExecution"]).lower()


def test_the_job_is_for_this_cluster() -> None:
    job = _one(build("job"), "RayJob")["spec"]
    cluster = _one(build("overlays/cpu"), "RayCluster")
    assert job["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    (container,) = job["submitterPodTemplate"]["spec"]["containers"]
    environment = {entry["name"]: entry for entry in container["env"]}
    assert environment["RAY_AUTH_MODE"]["value"] == "token"
    assert environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "inq-ray", "key": "auth_token"}


def test_the_version_of_ray_is_that_of_the_image() -> None:
    pinned = next(line for line in (REPO / "constraints.txt").read_text().splitlines() if line.startswith("ray=="))
    version = _one(build("overlays/cpu"), "RayCluster")["spec"]["rayVersion"]
    assert pinned.removeprefix("ray==").rstrip(" \\") == version
