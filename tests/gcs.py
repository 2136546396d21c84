"""A server that speaks like Google Cloud Storage: gcp-storage-emulator, in a process of its own on a free port."""

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SERVE = """
import os, sys
from gcp_storage_emulator.server import create_server

server = create_server("127.0.0.1", 0, in_memory=True)
server.start()
print(server._api._httpd.socket.getsockname()[1], flush=True)
sys.stdin.read()  # until the test session closes it, or dies
os._exit(0)
"""


@dataclass(frozen=True, kw_only=True)
class GoogleServer:
    """A running server; it asks nobody who he is.

    Attributes:
        endpoint: As for CLOUD_STORAGE_EMULATOR_ENDPOINT.
    """

    endpoint: str

    def upload(self, folder: Path, bucket: str, prefix: str) -> str:
        """Copy a folder's files to a new bucket, as objects and without markers of folders; return the address."""
        self._post("storage/v1/b?project=test", json.dumps({"name": bucket}).encode(), "application/json")
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = urllib.parse.quote(f"{prefix}/{file.relative_to(folder)}", safe="")
            address = f"upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"
            self._post(address, file.read_bytes(), "application/octet-stream")
        return f"gs://anonymous@{bucket}/{prefix}"

    def _post(self, path: str, body: bytes, kind: str) -> None:
        request = urllib.request.Request(f"{self.endpoint}/{path}", body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=120):
            pass


@contextmanager
def serve_gcs() -> Iterator[GoogleServer]:
    """Start a server, and end it after the block."""
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    command = [sys.executable, "-W", "ignore", "-c", _SERVE]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield GoogleServer(endpoint=f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.stdin.close()
            process.terminate()
