"""What KubeRay's resources may say, as far as this repository's say it: checked in the absence of the operator.

The fields of ray.io/v1 that we use are written down here by hand, and nothing else is let through: this finds slips of
the pen, not all that an operator would refuse. KubeRay's own definitions are not among the packages of a registry:
where they lie beside the checkout, resources are held to them too, see :func:`definition`. Pod templates are
Kubernetes' own and are checked against its schemas.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

KUBERNETES = "1.31"


def _closed(required: tuple[str, ...] = (), **properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_STRING, _COUNT, _ANY = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "object"}
_STRINGS = {"type": "object", "additionalProperties": _STRING}

_HEAD = _closed(
    ("template", "rayStartParams"),
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    rayStartParams=_STRINGS,
    template=_ANY,
)
_WORKERS = _closed(
    ("groupName", "maxReplicas", "minReplicas", "template"),
    groupName={"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    rayStartParams=_STRINGS,
    template=_ANY,
)
_CLUSTER = _closed(
    ("headGroupSpec",),
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=_closed(mode={"enum": ["disabled", "token"]}),
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=_closed(
        version={"enum": ["v1", "v2"]},
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        idleTimeoutSeconds=_COUNT,
        securityContext=_ANY,
        resources=_ANY,
    ),
    headGroupSpec=_HEAD,
    workerGroupSpecs={"type": "array", "items": _WORKERS},
)
_JOB = _closed(
    ("entrypoint",),
    clusterSelector=_STRINGS,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    entrypoint=_STRING,
    submitterConfig=_closed(backoffLimit=_COUNT),
    submitterPodTemplate=_ANY,
)
_METADATA = _closed(("name",), name=_STRING)


def _resource(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _closed(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=_METADATA,
        spec=spec,
    )


_KINDS = {"RayCluster": _resource("RayCluster", _CLUSTER), "RayJob": _resource("RayJob", _JOB)}


def pod_templates(resource: dict[str, Any]) -> list[dict[str, Any]]:
    """The pods that a resource of KubeRay asks for: the head's first."""
    spec = resource["spec"]
    if resource["kind"] == "RayJob":
        return [spec["submitterPodTemplate"]]
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]


@cache
def definition(folder: Path, kind: str) -> jsonschema.Draft202012Validator:
    """Return KubeRay's own schema of a kind in version v1, closed: a field that it does not know is an error.

    Args:
        folder: With its CustomResourceDefinitions as JSON.
        kind: RayCluster or RayJob.
    """
    found = json.loads((folder / f"ray.io_{kind.lower()}s.json").read_text(encoding="utf-8"))
    assert found["spec"]["names"]["kind"] == kind
    (version,) = [version for version in found["spec"]["versions"] if version["name"] == "v1"]
    schema: dict[str, Any] = _strict(version["schema"]["openAPIV3Schema"])
    # Kubernetes' own, of which a definition says nothing.
    schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    return jsonschema.Draft202012Validator(schema)


def _strict(schema: Any) -> Any:
    """Return an OpenAPI schema of Kubernetes as a closed JSON schema, as `kubectl --validate=strict` reads it."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        name: {key: _strict(value) for key, value in each.items()} if name == "properties" else _strict(each)
        for name, each in schema.items()
    }
    if closed.get("x-kubernetes-int-or-string") is True:
        return {"type": ["integer", "string"]}
    if "properties" in closed and closed.get("x-kubernetes-preserve-unknown-fields") is not True:
        closed.setdefault("additionalProperties", False)
    return closed


def validate(resource: dict[str, Any]) -> None:
    """Check a resource, KubeRay's or Kubernetes' own, strictly: a field that does not exist is an error.

    Raises:
        jsonschema.ValidationError: Says what is wrong.
    """
    if resource["kind"] not in _KINDS:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
        return
    jsonschema.validate(resource, _KINDS[resource["kind"]])
    for template in pod_templates(resource):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
