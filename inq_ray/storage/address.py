"""Where data lie: a path of this machine, or an address of a storage, read in one way with retries.

    ~/imagenet, /data/imagenet, file:///data/imagenet    this machine
    s3://bucket/imagenet                                 S3, or what speaks like it (AWS_ENDPOINT_URL)
    gs://bucket/imagenet                                 Google Cloud Storage
    hdfs://host:8020/imagenet, hdfs:///imagenet          Hadoop

Keys, endpoint and region come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL,
AWS_REGION; GOOGLE_APPLICATION_CREDENTIALS) or the files of the storage's own tools, never from the address: addresses
are printed and saved. For a bucket that is open to all, s3://anonymous@bucket/path uses no keys.
"""

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow.fs as pafs

from inq_ray.storage.fence import Fence, shown
from inq_ray.storage.file_system import file_system, s3_endpoint
from inq_ray.storage.retry import MissingError, retry

SCHEMES = ("file", "gs", "hdfs", "s3")
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_ONE_SLASH = re.compile(r"(?P<scheme>s3|gs|hdfs|file):/(?!/)(?P<rest>.*)", re.DOTALL)
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Location:
    r"""A file or folder, there or not. Cheap to pickle: access is opened again in each process, and no key is within.

    Attributes:
        root: Which file system: "" for this machine's, else "s3://bucket", "gs://bucket", "hdfs://host:port".
        path: Within that file system, as pyarrow wants it: absolute, or "bucket/key".
        name: As users write it, to be shown; bytes that are not UTF-8 are written \xff.
    """

    root: str
    path: str
    name: str

    @property
    def fs(self) -> pafs.FileSystem:
        """The file system, opened once in each process.

        Raises:
            ValueError: It cannot be opened.
        """
        return file_system(self.root)

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine."""
        return not self.root

    def join(self, child: str) -> "Location":
        """Return what lies below: a name, or several with slashes."""
        return Location(self.root, _join(self.path, child), _join(self.name, shown(child)))

    def info(self) -> pafs.FileInfo:
        """Return type and size.

        Raises:
            ValueError: There is nothing there, or the storage fails.
        """
        found = self._look()
        if found.type == pafs.FileType.NotFound:
            raise MissingError(self._missing())
        return found

    def exists(self) -> bool:
        """Return whether there is something there.

        Raises:
            ValueError: The storage fails.
        """
        return bool(self._look().type != pafs.FileType.NotFound)

    def list(self, *, recursive: bool = False) -> list[pafs.FileInfo]:
        """Return what is in the folder, sorted by path; `relative` turns their paths into names.

        Raises:
            ValueError: There is no such folder, or the storage fails.
        """
        # pyarrow lists on Google's storage only what is an object, and folders are none.
        selector = pafs.FileSelector(self.path, recursive=recursive or not self.lists_folders)
        try:
            found = {info.path: info for info in self._retry(lambda: self.fs.get_file_info(selector))}
        except UnicodeDecodeError as error:
            raise ValueError(f"cannot list {self.name}: the name of a file there is not UTF-8; rename it") from error
        if not self.lists_folders:
            found = _with_folders(self.path, found)
        return [info for _, info in sorted(found.items()) if recursive or "/" not in self.relative(info)]

    @property
    def lists_folders(self) -> bool:
        """Whether the folders in a folder can be listed without listing all that is in them."""
        return not self.root.startswith("gs:")

    def relative(self, info: pafs.FileInfo) -> str:
        """Return the path of something listed here, from here."""
        return str(info.path).removeprefix(self.path.rstrip("/") + "/")

    def fence(self, *, follow_links: bool) -> Fence | None:
        """Return what links in this folder must not lead out of; None if they may, and at a storage, which has none."""
        return None if follow_links or not self.is_local else Fence.around(self.path)

    def read(self, num_bytes: int | None = None, *, fence: Fence | None = None) -> bytes:
        """Return the contents.

        Args:
            num_bytes: How many they are, where that is known: fewer are taken for a connection that broke.
            fence: Nothing outside of it is read.

        Raises:
            UnreadableError: The file is missing or closed to us.
            ValueError: The storage fails.
        """

        def read() -> bytes:
            if self.is_local:  # also paths that are not UTF-8
                return _read_file(self.path, fence)
            with self.fs.open_input_file(self.path) as file:
                data: bytes = file.read()
            if num_bytes is not None and len(data) < num_bytes:
                raise ConnectionResetError(f"{len(data)} bytes came of {num_bytes}")
            return data

        return self._retry(read)

    def open(self) -> Any:
        """Return an open file for random access (pyarrow.NativeFile). Reading from it is the caller's to `retry`.

        Raises:
            UnreadableError: The file is missing or closed to us.
            ValueError: The storage fails.
        """

        def open_file() -> Any:
            if self.is_local:
                _check_is_file(os.stat(self.path))
            return self.fs.open_input_file(self.path)

        return self._retry(open_file)

    def _retry(self, call: Callable[[], _Result]) -> _Result:
        """Try again while that may help; of what is missing say whether it is the bucket."""
        try:
            return retry(call, self.name)
        except MissingError as error:
            raise MissingError(self._missing()) from error

    def _look(self) -> pafs.FileInfo:
        return self._retry(lambda: self.fs.get_file_info(self.path))

    def _missing(self) -> str:
        """Return what to say where nothing is."""
        bucket, _, _ = self.path.partition("/")
        if self.root.startswith(("s3:", "gs:")) and self._has_no_bucket(bucket):
            return f"there is no bucket {bucket!r}, asked for {self.name}{_where()}: correct its name"
        return f"there is nothing at {self.name}{_where() if self.root.startswith('s3:') else ''}"

    def _has_no_bucket(self, bucket: str) -> bool:
        found = retry(lambda: self.fs.get_file_info(bucket), f"{self.root} (for {self.name})")
        return bool(found.type == pafs.FileType.NotFound)


def locate(data: str, what: str = "--data") -> Location:
    """Return where data lie. Nothing is looked at yet.

    Args:
        data: A path (~ is the home folder), or an address as listed above. Characters stand for themselves: there is no
            %20, and no ?option=.
        what: The flag that said it, for messages.

    Raises:
        ValueError: The address is of no storage that is read here, has no bucket, one slash, or a key within.
    """
    check_slashes(data, what)
    match = _ADDRESS.fullmatch(data)
    if match is None or match["scheme"] == "file":
        return _locate_here(data, match["rest"] if match else data, what)
    scheme, authority, path = match["scheme"], *halves(match["rest"])
    if scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"{what} {data!r} is no address that is read here: use a path, or one of {known}")
    user, at, bucket = authority.rpartition("@")
    if at and (":" in user if scheme == "hdfs" else user != "anonymous"):
        raise ValueError(
            f"an address is printed and saved, keys do not belong into it ({scheme}://...@{bucket}): "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS"
        )
    if scheme == "hdfs":
        if not re.fullmatch(r"[^:]*(:\d+)?", bucket):
            raise ValueError(f"{what} {data!r}: {bucket!r} is no host:port, as in hdfs://host:8020/folder")
        return Location(f"hdfs://{authority}", f"/{path}", data)
    if not bucket:
        raise ValueError(f"{what} {data!r} has no bucket: addresses are like {scheme}://bucket/folder")
    if re.search(r"\?\w+=", path):
        raise ValueError(f"{what} {data!r}: options in an address are not read: set AWS_ENDPOINT_URL, AWS_REGION")
    return Location(f"{scheme}://{authority}", _join(bucket, path), data)


def check_slashes(path: str, what: str) -> None:
    """Refuse s3:/bucket, which is a folder called "s3:" to a file system, and an address to who wrote it.

    Raises:
        ValueError: Says both.
    """
    match = _ONE_SLASH.fullmatch(path)
    if match:
        scheme, rest = match["scheme"], match["rest"]
        raise ValueError(f"{what} {path}: did you mean {scheme}://{rest}? A folder of this name is ./{path}")


def _read_file(path: str, fence: Fence | None) -> bytes:
    """The contents of a file of this machine."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as here:
        _check_is_file(os.fstat(here.fileno()))
        if fence and not fence.holds_open(here.fileno(), path):
            raise PermissionError("it leads out of the folder of data by a link")
        return here.read()


def _check_is_file(status: os.stat_result) -> None:
    """Refuse what is neither file nor folder.

    Whoever lays out a folder of data may link to anything: a pipe would be waited for, and a device has no end.
    """
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise PermissionError("a device or a pipe, and no file")


def _with_folders(base: str, found: dict[str, pafs.FileInfo]) -> dict[str, pafs.FileInfo]:
    """Return what was listed below a folder, by path, and the folders on the way to it."""
    paths = [path.rstrip("/") for path in found]  # some tools make an object "folder/" for a folder
    ends = ((path, end) for path in paths for end in range(len(base) + 1, len(path)) if path[end] == "/")
    folders = {path[:end] for path, end in ends} | {path.rstrip("/") for path in found if path.endswith("/")}
    files = {path: info for path, info in found.items() if path.rstrip("/") not in folders}
    return files | {path: pafs.FileInfo(path, pafs.FileType.Directory) for path in folders}


def _locate_here(data: str, path: str, what: str) -> Location:
    if not path:
        raise ValueError(f"{what} {data!r} is no path")
    return Location("", os.path.abspath(os.path.expanduser(path)), shown(data))


def halves(text: str) -> tuple[str, str]:
    """Return what stands before the first slash, and what stands after it without slashes at its ends."""
    head, _, tail = text.partition("/")
    return head, tail.strip("/")


def _join(folder: str, child: str) -> str:
    return f"{folder.rstrip('/')}/{child}" if child else folder


def _where() -> str:
    """Return which S3 is meant, where that is not Amazon's."""
    endpoint = s3_endpoint()
    return f" (at {endpoint})" if endpoint else ""
