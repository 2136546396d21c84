"""Access to the file systems that data lie on, opened once in each process, with time limits.

Keys, endpoint and region come from the environment or the files of the storage's own tools; see `address`.
"""

import os
from datetime import timedelta
from functools import cache, lru_cache

import pyarrow.fs as pafs

from inq_ray.storage.retry import reason, retry

CONNECT_SECONDS = 10.0
# Of silence: as long as bytes come, however slowly, nothing is cut off.
SILENCE_SECONDS = 30.0
# google-cloud-cpp tries again by itself; the growing pauses are ours.
GOOGLE_SECONDS = 10.0
# Variables of the environment that the file systems read.
_SETTINGS = ("AWS_", "CLOUD_STORAGE_", "GOOGLE_")


def file_system(root: str) -> pafs.FileSystem:
    """Return the file system of a root as of `Location`; opened once for each set of settings in the environment.

    Raises:
        ValueError: It cannot be opened.
    """
    if not root:
        return _local()
    return _remote(root, tuple(sorted(item for item in os.environ.items() if item[0].startswith(_SETTINGS))))


def s3_endpoint() -> str | None:
    """Return where S3 is, if not at Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


@cache
def _local() -> pafs.FileSystem:
    return pafs.LocalFileSystem()


@lru_cache(maxsize=8)
def _remote(root: str, _: tuple[tuple[str, str], ...]) -> pafs.FileSystem:
    scheme, authority = root.split("://")
    open_it = {"s3": _open_s3, "gs": _open_google, "hdfs": _open_hadoop}[scheme]
    try:
        return open_it(authority)
    except OSError as error:
        advice = "; Hadoop's libhdfs and Java are needed: set HADOOP_HOME, JAVA_HOME, CLASSPATH" * (scheme == "hdfs")
        raise ValueError(f"cannot open {root}: {reason(error)}{advice}") from error


def _open_s3(authority: str) -> pafs.FileSystem:
    user, _, bucket = authority.rpartition("@")
    endpoint = s3_endpoint()
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None:
        region = "us-east-1" if endpoint else retry(lambda: pafs.resolve_s3_region(bucket), f"the region of {bucket}")
    return pafs.S3FileSystem(
        anonymous=user == "anonymous",
        region=region,
        endpoint_override=endpoint,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=SILENCE_SECONDS,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=1),  # `retry` does it, in the open
    )


def _open_google(authority: str) -> pafs.FileSystem:
    user, _, _ = authority.rpartition("@")
    return pafs.GcsFileSystem(anonymous=user == "anonymous", retry_time_limit=timedelta(seconds=GOOGLE_SECONDS))


def _open_hadoop(authority: str) -> pafs.FileSystem:
    user, _, host_port = authority.rpartition("@")
    host, _, port = host_port.partition(":")
    return pafs.HadoopFileSystem(host or "default", int(port or 0), user=user or None)
