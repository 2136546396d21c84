"""Servers of storages for the tests of data, started by the first test that asks for them."""

from collections.abc import Iterator

import pytest

from inq_ray.data import retry
from tests.gcs import GoogleServer, serve_gcs
from tests.proxy import BadProxy, bad_proxy
from tests.s3 import FOREIGN_SETTINGS, S3Server, serve_s3


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The server; `s3` gives a test access to it."""
    with serve_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with this process's environment set so that s3:// means it."""
    for name in FOREIGN_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleServer]:
    """A server like Google's, for this test alone, and gs:// means it."""
    with serve_gcs() as server:
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", server.endpoint)
        yield server


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[BadProxy]:
    """A proxy before the server, through which s3:// leads now: a good one until it is told otherwise."""
    with bad_proxy(s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures end within moments."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.01)
