"""File systems for data, opened once per process, with time limits.

Keys, endpoint and region come from the environment or the storage tools' own files; see `address`.
"""

import os
from datetime import timedelta
from functools import cache, lru_cache

import pyarrow.fs as pafs

from inq_ray.storage.retry import reason, retry

CONNECT_SECONDS = 10.0
# Longest time without a byte: a slow transfer is not cut off.
SILENCE_SECONDS = 30.0
# google-cloud-cpp retries on its own; the growing pauses are ours.
GOOGLE_SECONDS = 10.0
# Prefixes of environment variables that the file systems read.
_SETTINGS = ("AWS_", "CLOUD_STORAGE_", "GOOGLE_")


def file_system(root: str) -> pafs.FileSystem:
    """Return the file system for a `Location.root`, opened once per set of environment variables.

    Raises:
        ValueError: The file system cannot be opened.
    """
    if not root:
        return _local()
    return _remote(root, tuple(sorted(item for item in os.environ.items() if item[0].startswith(_SETTINGS))))


def s3_endpoint() -> str | None:
    """Return the S3 endpoint if it is not Amazon's."""
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
        advice = "; HDFS needs Hadoop's libhdfs and Java: set HADOOP_HOME, JAVA_HOME, CLASSPATH" * (scheme == "hdfs")
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
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=1),  # `retry` retries, and logs it
    )


def _open_google(authority: str) -> pafs.FileSystem:
    user, _, _ = authority.rpartition("@")
    return pafs.GcsFileSystem(anonymous=user == "anonymous", retry_time_limit=timedelta(seconds=GOOGLE_SECONDS))


def _open_hadoop(authority: str) -> pafs.FileSystem:
    user, _, host_port = authority.rpartition("@")
    host, _, port = host_port.partition(":")
    return pafs.HadoopFileSystem(host or "default", int(port or 0), user=user or None)
