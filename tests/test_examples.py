"""The examples in docstrings run and print what they say; every public function and class has one."""

import doctest
import importlib

import pytest

import inq_ray
from tests.conftest import REPO

PUBLIC = [name for name in inq_ray.__all__ if not name.startswith("__") and not name.endswith("Error")]
MODULES = [
    ".".join(path.relative_to(REPO).with_suffix("").parts)
    for path in sorted((REPO / "inq_ray").rglob("*.py"))
    if ">>>" in path.read_text()
]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name: str) -> None:
    assert ">>>" in (getattr(inq_ray, name).__doc__ or "")


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module), optionflags=doctest.REPORT_NDIFF | doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0
