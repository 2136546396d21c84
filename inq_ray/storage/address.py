"""Addresses of data: a local path, or an object storage or HDFS, read the same way with retries.

    ~/imagenet, /data/imagenet, file:///data/imagenet    this machine
    s3://bucket/imagenet                                 S3 or a compatible storage (AWS_ENDPOINT_URL)
    gs://bucket/imagenet                                 Google Cloud Storage
    hdfs://host:8020/imagenet, hdfs:///imagenet          Hadoop

Keys, endpoint and region come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL,
AWS_REGION; GOOGLE_APPLICATION_CREDENTIALS) or the storage tools' own files, never from the address, which is printed
and saved. For a public bucket, s3://anonymous@bucket/path uses no keys.
"""

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow.fs as pafs

from inq_ray.files.shown import quoted
from inq_ray.files.shown import shown as printable
from inq_ray.storage.fence import Fence, shown
from inq_ray.storage.file_system import file_system, s3_endpoint
from inq_ray.storage.retry import MissingError, retry

SCHEMES = ("file", "gs", "hdfs", "s3")
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_ONE_SLASH = re.compile(r"(?P<scheme>s3|gs|hdfs|file):/(?!/)(?P<rest>.*)", re.DOTALL)
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Location:
    r"""A file or folder that need not exist. Cheap to pickle: each process opens access again; no keys are included.

    Attributes:
        root: File system: "" for local files, else "s3://bucket", "gs://bucket", "hdfs://host:port".
        path: Path within the file system, as pyarrow expects it: absolute, or "bucket/key".
        name: The address as the user wrote it, for messages; bytes that are not UTF-8 are written \xff.
    """

    root: str
    path: str
    name: str

    @property
    def fs(self) -> pafs.FileSystem:
        """The file system, opened once per process.

        Raises:
            ValueError: The file system cannot be opened.
        """
        return file_system(self.root)

    @property
    def is_local(self) -> bool:
        """Whether it is a local path."""
        return not self.root

    def join(self, child: str) -> "Location":
        """Return the location of a child: a name, or several separated by slashes."""
        return Location(self.root, _join(self.path, child), _join(self.name, shown(child)))

    def info(self) -> pafs.FileInfo:
        """Return type and size.

        Raises:
            ValueError: Nothing exists there, or the storage fails.
        """
        found = self._look()
        if found.type == pafs.FileType.NotFound:
            raise MissingError(self._missing())
        return found

    def exists(self) -> bool:
        """Return whether a file or folder exists there.

        Raises:
            ValueError: The storage fails.
        """
        return bool(self._look().type != pafs.FileType.NotFound)

    def list(self, *, recursive: bool = False) -> list[pafs.FileInfo]:
        """Return the contents of the folder, sorted by path; `relative` turns their paths into names.

        Raises:
            ValueError: There is no such folder, or the storage fails.
        """
        # On Google's storage pyarrow lists objects only; folders are not objects.
        selector = pafs.FileSelector(self.path, recursive=recursive or not self.lists_folders)
        try:
            found = {info.path: info for info in self._retry(lambda: self.fs.get_file_info(selector))}
        except UnicodeDecodeError as error:
            raise ValueError(f"cannot list {self.name}: a file name there is not UTF-8; rename the file") from error
        if not self.lists_folders:
            found = _with_folders(self.path, found)
        return [info for _, info in sorted(found.items()) if recursive or "/" not in self.relative(info)]

    @property
    def lists_folders(self) -> bool:
        """Whether subfolders can be listed without listing everything in them."""
        return not self.root.startswith("gs:")

    def relative(self, info: pafs.FileInfo) -> str:
        """Return the path of a listed entry relative to this location."""
        return str(info.path).removeprefix(self.path.rstrip("/") + "/")

    def fence(self, *, follow_links: bool) -> Fence | None:
        """Return the fence that links in this folder must stay in; None if links are allowed or it is a storage."""
        return None if follow_links or not self.is_local else Fence.around(self.path)

    def read(self, num_bytes: int | None = None, *, fence: Fence | None = None) -> bytes:
        """Return the file's contents.

        Args:
            num_bytes: The file's size, if known: receiving fewer bytes counts as a broken connection.
            fence: Nothing outside of it is read.

        Raises:
            UnreadableError: The file is missing, or access is denied.
            ValueError: The storage fails.
        """

        def read() -> bytes:
            if self.is_local:  # including paths that are not UTF-8
                return _read_file(self.path, fence)
            with self.fs.open_input_file(self.path) as file:
                data: bytes = file.read()
            if num_bytes is not None and len(data) < num_bytes:
                raise ConnectionResetError(f"received {len(data)} of {num_bytes} bytes")
            return data

        return self._retry(read)

    def read_at(self, start: int, num_bytes: int) -> bytes:
        """Return a part of the file; less if it ends earlier.

        Raises:
            UnreadableError: The file is missing, or access is denied.
            ValueError: The storage fails.
        """

        def read() -> bytes:
            if self.is_local:
                return _read_file(self.path, None, start, num_bytes)
            with self.fs.open_input_file(self.path) as file:
                data: bytes = file.read_at(num_bytes, start)
                if len(data) < min(num_bytes, file.size() - start):
                    raise ConnectionResetError(f"received {len(data)} of {num_bytes} bytes")
            return data

        return self._retry(read)

    def open(self) -> Any:
        """Return the file opened for random access (pyarrow.NativeFile). The caller wraps its reads in `retry`.

        Raises:
            UnreadableError: The file is missing, or access is denied.
            ValueError: The storage fails.
        """

        def open_file() -> Any:
            if self.is_local:
                _check_is_file(os.stat(self.path))
            return self.fs.open_input_file(self.path)

        return self._retry(open_file)

    def _retry(self, call: Callable[[], _Result]) -> _Result:
        """Retry transient failures; if something is missing, report whether the bucket is."""
        try:
            return retry(call, self.name)
        except MissingError as error:
            raise MissingError(self._missing()) from error

    def _look(self) -> pafs.FileInfo:
        return self._retry(lambda: self.fs.get_file_info(self.path))

    def _missing(self) -> str:
        """Return the message for a location that does not exist."""
        bucket, _, _ = self.path.partition("/")
        if self.root.startswith(("s3:", "gs:")) and self._has_no_bucket(bucket):
            return f"there is no bucket {bucket!r}{_where()} for {self.name}: correct its name"
        return f"there is nothing at {self.name}{_where() if self.root.startswith('s3:') else ''}"

    def _has_no_bucket(self, bucket: str) -> bool:
        found = retry(lambda: self.fs.get_file_info(bucket), f"{self.root} (for {self.name})")
        return bool(found.type == pafs.FileType.NotFound)


def locate(data: str, what: str = "--data") -> Location:
    """Return the location of data, without accessing it.

    Args:
        data: A path (~ is the home folder), or an address as listed above. Characters are taken literally: %20 and
            ?option= have no special meaning.
        what: The flag that named it, for messages.

    Raises:
        ValueError: Unknown kind of address, no bucket, a single slash, or a key in the address.
    """
    check_slashes(data, what)
    match = _ADDRESS.fullmatch(data)
    if match is None or match["scheme"] == "file":
        return _locate_here(data, match["rest"] if match else data, what)
    scheme, authority, path = match["scheme"], *halves(match["rest"])
    bucket = authority.rpartition("@")[2]
    if scheme in ("gs", "s3") and "@" not in data and re.fullmatch(r"[\w.-]+:\d{1,5}", authority):
        how = "set AWS_ENDPOINT_URL, and use" if scheme == "s3" else "use"
        raise ValueError(f"{what} {quoted(data)}: {authority} is a host, not a bucket: {how} {scheme}://bucket/folder")
    if _has_keys(scheme, authority, path):
        raise ValueError(
            f"addresses are printed and saved, so they must not contain keys ({scheme}://...@...): "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS"
        )
    if scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"{what} {quoted(data)} is not a supported address: use a path, or one of {known}")
    if scheme == "hdfs":
        if not re.fullmatch(r"[^:]*(:\d+)?", bucket):
            raise ValueError(f"{what} {quoted(data)}: {bucket!r} is not host:port, as in hdfs://host:8020/folder")
        return Location(f"hdfs://{authority}", f"/{path}", data)
    if not bucket:
        raise ValueError(f"{what} {quoted(data)} has no bucket: use an address such as {scheme}://bucket/folder")
    if re.search(r"\?\w+=", path):
        raise ValueError(
            f"{what} {quoted(data)}: options in addresses are not supported: set AWS_ENDPOINT_URL, AWS_REGION"
        )
    return Location(f"{scheme}://{authority}", _join(bucket, path), data)


def _has_keys(scheme: str, authority: str, path: str) -> bool:
    """Return whether an address has a key or password, which may contain a slash."""
    user, at, host = authority.rpartition("@")
    if scheme in ("gs", "s3"):  # no bucket's name has a colon
        return (bool(at) and user != "anonymous") or ":" in host
    return ":" in user or (not at and "@" in path and re.fullmatch(r"[^:]*(:\d+)?", host) is None)


def check_slashes(path: str, what: str) -> None:
    """Refuse "s3:/bucket", which the user meant as an address and the file system reads as a folder "s3:".

    Raises:
        ValueError: The path is such; names both readings.
    """
    match = _ONE_SLASH.fullmatch(path)
    if match:
        scheme, rest = match["scheme"], match["rest"]
        raise ValueError(
            f"{what} {printable(path)}: did you mean {printable(f'{scheme}://{rest}', 150)}? "
            "For a folder, put ./ before"
        )


def _read_file(path: str, fence: Fence | None, start: int = 0, num_bytes: int = -1) -> bytes:
    """Return the contents of a local file, or so many bytes of them from `start`."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as here:
        _check_is_file(os.fstat(here.fileno()))
        if fence and not fence.holds_open(here.fileno(), path):
            raise PermissionError("a link leads out of the data folder")
        here.seek(start)
        return here.read(num_bytes)


def _check_is_file(status: os.stat_result) -> None:
    """Refuse anything but files and folders.

    A link in a folder of data may lead to anything: reading a pipe would wait forever, and a device has no end.
    """
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise PermissionError("a device or a pipe, not a file")


def _with_folders(base: str, found: dict[str, pafs.FileInfo]) -> dict[str, pafs.FileInfo]:
    """Return the listed entries below a folder by path, with the folders on the way to them."""
    paths = [path.rstrip("/") for path in found]  # some tools create an object "folder/" for a folder
    ends = ((path, end) for path in paths for end in range(len(base) + 1, len(path)) if path[end] == "/")
    folders = {path[:end] for path, end in ends} | {path.rstrip("/") for path in found if path.endswith("/")}
    files = {path: info for path, info in found.items() if path.rstrip("/") not in folders}
    return files | {path: pafs.FileInfo(path, pafs.FileType.Directory) for path in folders}


def _locate_here(data: str, path: str, what: str) -> Location:
    if not path:
        raise ValueError(f"{what} {quoted(data)} is not a path")
    return Location("", os.path.abspath(os.path.expanduser(path)), shown(data))


def halves(text: str) -> tuple[str, str]:
    """Return the text before the first slash, and the text after it without slashes at its ends."""
    head, _, tail = text.partition("/")
    return head, tail.strip("/")


def _join(folder: str, child: str) -> str:
    return f"{folder.rstrip('/')}/{child}" if child else folder


def _where() -> str:
    """Return which S3 is used, if it is not Amazon's."""
    endpoint = s3_endpoint()
    return f" (at {endpoint})" if endpoint else ""
