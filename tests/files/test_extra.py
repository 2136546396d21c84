"""The command that installs an optional library."""

import json
import shlex
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from inq_ray.files import extra
from inq_ray.files.extra import install_command
from tests.conftest import REPO


def _installed(origin: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "distribution", lambda _: SimpleNamespace(read_text=lambda _: origin))


def test_from_a_checkout_it_is_the_extra_of_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(json.dumps({"url": REPO.as_uri(), "dir_info": {"editable": True}}), monkeypatch)
    command = install_command("tensorboard", "tensorboard")
    assert shlex.split(command) == ["pip", "install", "-e", f"{REPO}[tensorboard]"]
    assert command.endswith("[tensorboard]'")  # quoted: brackets are a pattern to a shell


@pytest.mark.parametrize(
    "origin",
    [
        None,  # from an index
        json.dumps({"url": "file:///downloads/inq_ray-0.1.0-py3-none-any.whl", "archive_info": {}}),
        json.dumps({"url": REPO.as_uri(), "dir_info": {}}),  # pip install .
        json.dumps({"url": "file:///another/checkout", "dir_info": {"editable": True}}),
    ],
)
def test_from_a_wheel_it_names_the_libraries(origin: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(origin, monkeypatch)
    assert install_command("mlflow", "mlflow", "sqlalchemy>=2") == "pip install mlflow 'sqlalchemy>=2'"


def test_code_that_is_not_installed_names_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(extra, "distribution", missing)
    assert install_command("timm", "timm") == "pip install timm"


def test_a_long_path_of_the_checkout_stays_one_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "_checkout", lambda: Path("/x" * 1000))
    assert len(install_command("timm", "timm")) < 200
