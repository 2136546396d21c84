"""Alert rules, dashboard and document speak of metrics that there are, and of all of them."""

import json
import re
import shutil
import subprocess
from typing import get_args

import pytest
import yaml

from inq_ray.training.incident import Kind
from tests.conftest import REPO

ALERTS = REPO / "docker" / "prometheus" / "alerts.yaml"
DASHBOARD = REPO / "docker" / "grafana" / "inq_ray.json"
DOCUMENT = REPO / "docs" / "metrics.md"


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
    assert expression.count("(") == expression.count(")")
    assert isinstance(rule["annotations"], dict)
    assert set(rule["annotations"]) == {"summary", "description"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of the package prometheus")
def test_alerts_fire_when_they_should() -> None:
    command = ["promtool", "test", "rules", str(REPO / "tests" / "docker" / "alerts.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
