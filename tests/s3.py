"""A real S3 server for tests: moto's, in a process of its own on a free port of the loopback interface.

It checks signatures and policies as S3 does: of two users, one may do everything and one nothing.
"""

import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pyarrow.fs as pafs

# The shell's own settings of S3 have no say in a test; where the machine is in EC2, nobody asks it for keys.
FOREIGN_SETTINGS = ("AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_PROFILE", "AWS_CONFIG_FILE")

_SERVE = """
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # until the test session closes it, or dies
"""
_EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A running server.

    Attributes:
        endpoint: As for AWS_ENDPOINT_URL.
        environment: What a process needs to have all rights there.
        powerless: What a process needs to be known there, without a right to anything.
    """

    endpoint: str
    environment: dict[str, str]
    powerless: dict[str, str]

    @property
    def port(self) -> int:
        """Of 127.0.0.1."""
        return int(self.endpoint.rpartition(":")[2])

    def file_system(self) -> pafs.S3FileSystem:
        """Return access for a test's own hands: buckets can be made and removed through it."""
        return pafs.S3FileSystem(
            access_key=self.environment["AWS_ACCESS_KEY_ID"],
            secret_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            endpoint_override=self.endpoint,
            region=self.environment["AWS_DEFAULT_REGION"],
            allow_bucket_creation=True,
            allow_bucket_deletion=True,
        )

    def upload(self, folder: Path, destination: str) -> str:
        """Copy a folder's files to "bucket" or "bucket/prefix", the bucket is made if need be; return the address."""
        store = self.file_system()
        store.create_dir(destination.partition("/")[0])
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            with store.open_output_stream(f"{destination}/{file.relative_to(folder)}") as stream:
                stream.write(file.read_bytes())
        return f"s3://{destination}"


@contextmanager
def serve_s3() -> Iterator[S3Server]:
    """Start a server, and end it after the block."""
    command = [sys.executable, "-W", "ignore", "-c", _SERVE]
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    with subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
            mighty, powerless = _make_user(endpoint, "mighty"), _make_user(endpoint, "powerless")
            policy = {"UserName": "mighty", "PolicyName": "all", "PolicyDocument": json.dumps(_EVERYTHING)}
            _iam(endpoint, "PutUserPolicy", **policy)
            _post(
                f"{endpoint}/moto-api/reset-auth", b"0", **{"Content-Type": "text/plain"}
            )  # from here on the server asks who one is
            yield S3Server(endpoint=endpoint, environment=mighty, powerless=powerless)
        finally:
            process.stdin.close()
            process.terminate()


def _make_user(endpoint: str, name: str) -> dict[str, str]:
    """Make a user, and return the environment variables that make a process this user."""
    _iam(endpoint, "CreateUser", UserName=name)
    key = ET.fromstring(_iam(endpoint, "CreateAccessKey", UserName=name))
    found = {element.tag.rpartition("}")[2]: element.text or "" for element in key.iter()}
    return {
        "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _iam(endpoint: str, action: str, **parameters: str) -> bytes:
    """Call the server's user management."""
    body = urllib.parse.urlencode({"Action": action, "Version": "2010-05-08", **parameters}).encode()
    return _post(
        endpoint, body, Authorization="AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/iam/aws4_request"
    )


def _post(url: str, body: bytes, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=120) as answer:
        return bytes(answer.read())
