"""Files for a host of repositories: how to cite, how to report. They keep to the forms that hosts read."""

import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.conftest import REPO

if not (REPO / "CITATION.cff").exists():
    pytest.skip("not the whole checkout", allow_module_level=True)

_CITATION = yaml.safe_load((REPO / "CITATION.cff").read_text())
_FORMS = sorted((REPO / ".github" / "ISSUE_TEMPLATE").glob("*_*.yml"))
_TYPES = {"article", "conference-paper", "generic", "software"}  # of references; some of those allowed


def test_the_citation_keeps_to_the_schema() -> None:
    """Citation File Format 1.2.0: the keys that it requires, and the values that it allows to those used here."""
    assert {"cff-version", "message", "title", "authors"} <= _CITATION.keys()
    assert _CITATION["cff-version"] == "1.2.0"
    assert _CITATION["type"] in ("software", "dataset")
    assert len(set(_CITATION["keywords"])) == len(_CITATION["keywords"])
    for work in (_CITATION, *_CITATION["references"]):
        for author in work["authors"]:
            assert author.keys() <= {"name"} or author.keys() <= {"given-names", "family-names"}
    for work in _CITATION["references"]:
        assert {"type", "title", "authors"} <= work.keys()
        assert work["type"] in _TYPES
        assert isinstance(work["year"], int)
        assert re.match("https://", work["url"])


def test_the_citation_is_of_this_project() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert _CITATION["license"] == project["license"]
    assert [author["name"] for author in _CITATION["authors"]] == [author["name"] for author in project["authors"]]


def test_there_are_forms_for_bugs_and_features() -> None:
    assert [path.stem for path in _FORMS] == ["bug_report", "feature_request"]


@pytest.mark.parametrize("path", _FORMS, ids=lambda path: path.stem)
def test_a_form_keeps_to_the_syntax(path: Any) -> None:
    form = yaml.safe_load(path.read_text())
    assert form.keys() <= {"name", "description", "title", "labels", "assignees", "body"}
    assert form["name"]
    assert form["description"]
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in fields}) == len({part["attributes"]["label"] for part in fields}) == len(fields)
    assert any(part.get("validations", {}).get("required") for part in fields)
    for part in form["body"]:
        assert part["type"] in ("markdown", "input", "textarea", "dropdown", "checkboxes")
        assert part.keys() <= {"type", "id", "attributes", "validations"}
        assert part["attributes"].keys() <= {"label", "description", "placeholder", "value", "render"}
