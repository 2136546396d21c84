"""Alert rules, dashboard and document speak of metrics that there are, and of all of them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest
import yaml

from inq_ray.training.report.incident import Kind
from tests.conftest import REPO

ALERTS = REPO / "docker" / "prometheus" / "alerts.yaml"
DASHBOARD = REPO / "docker" / "grafana" / "inq_ray.json"
DOCUMENT = REPO / "docs" / "metrics.md"
_PORT_NAME = "__meta_kubernetes_pod_container_port_name"


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool, of the package prometheus"
)


def exported() -> set[str]:
    """As Prometheus sees them: Ray adds its prefix, and to counters the suffix."""
    source = (REPO / "inq_ray" / "cluster" / "metrics.py").read_text()
    found = re.findall(r'(Gauge|Counter)\("(\w+)"', source)
    assert len(found) > 5
    return {f"ray_{name}" + ("_total" if kind == "Counter" else "") for kind, name in found}


def named(text: str) -> set[str]:
    return set(re.findall(r"ray_inq_\w+", text))


def test_the_document_names_all_metrics() -> None:
    assert named(DOCUMENT.read_text()) == exported()


def test_the_dashboard_shows_all_metrics() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert named(" ".join(expressions)) == exported()
    assert all('run=~"$run"' in expression for expression in expressions)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    corners = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]}
    assert len(corners) == len(dashboard["panels"])


def rules() -> list[dict[str, object]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    found: list[dict[str, object]] = group["rules"]
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alerts_are_about_what_is_exported(rule: dict[str, object]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    expression = str(rule["expr"])
    assert named(expression)
    assert named(expression) <= exported()
    kinds = [kind for text in re.findall(r'kind=~?"([^"]*)"', expression) for kind in text.split("|")]
    assert set(kinds) <= set(get_args(Kind))
    assert isinstance(rule["annotations"], dict)
    assert set(rule["annotations"]) == {"summary", "description"}


@needs_promtool
def test_alerts_fire_when_they_should() -> None:
    command = ["promtool", "test", "rules", str(REPO / "tests" / "docker" / "alerts.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    """But for the line that finds pods: Debian's promtool is built without Kubernetes."""
    shutil.copy(ALERTS, tmp_path)
    finding, fixed = "kubernetes_sd_configs: [{role: pod}]", "static_configs: [{targets: ['127.0.0.1:8080']}]"
    text = (ALERTS.parent / "prometheus.yaml").read_text()
    assert finding in text
    (tmp_path / "prometheus.yaml").write_text(text.replace(finding, fixed))
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_asks_at_the_ports_of_metrics() -> None:
    (job,) = yaml.safe_load((ALERTS.parent / "prometheus.yaml").read_text())["scrape_configs"]
    kept = {rule["source_labels"][0]: rule["regex"] for rule in job["relabel_configs"] if rule.get("action") == "keep"}
    folder = REPO / "docker" / "kubernetes"
    cluster = yaml.safe_load((folder / "base" / "cluster.yaml").read_text())
    assert cluster["metadata"]["name"] == kept["__meta_kubernetes_pod_label_ray_io_cluster"]
    ((addition,), (other,)) = (
        yaml.safe_load((folder / "overlays" / kind / "workers.yaml").read_text()) for kind in ("cpu", "gpu")
    )
    asked = [
        {port["containerPort"] for port in ports if re.fullmatch(kept[_PORT_NAME], port["name"])}
        for group in (cluster["spec"]["headGroupSpec"], addition["value"], other["value"])
        for ports in [group["template"]["spec"]["containers"][0]["ports"]]
    ]
    assert asked == [{8080, 44217, 44227}, {8080}, {8080}]
