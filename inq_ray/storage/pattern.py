"""Glob patterns (*, ? and [) for files on this machine and on storages."""

import fnmatch
import glob
import os
import re

import pyarrow.fs as pafs

from inq_ray.storage.address import Location, halves, locate
from inq_ray.storage.retry import MissingError

_GLOB = re.compile(r"[*?[]")


def expand(data: str) -> list[Location]:
    """Return the files and folders that match a pattern, sorted; without *, ? or [ just the location itself.

    As in a shell, a star matches neither slashes nor names that begin with a dot.

    Raises:
        ValueError: Nothing matches, or the storage fails.
    """
    location = locate(data)
    if not is_pattern(data):
        return [location]
    if location.is_local:
        found = [locate(path) for path in sorted(glob.glob(os.path.expanduser(data.removeprefix("file://"))))]
    else:
        bucket, path = halves(location.path)
        name = data.rstrip("/").removesuffix(path).rstrip("/")
        found = _match(Location(location.root, bucket, name), path.split("/"))
    if not found:
        raise ValueError(f"nothing matches {data}")
    return found


def is_pattern(data: str) -> bool:
    """Return whether the text has a *, ? or [ and is not the name of an existing local file or folder."""
    location = locate(data)
    return bool(_GLOB.search(data)) and not (location.is_local and os.path.lexists(location.path))


def fixed_part(data: str) -> str | None:
    """Return the local folder in which a pattern begins to vary; None if it is a single file or folder."""
    path = locate(data).path
    if not _GLOB.search(data) or os.path.lexists(path):
        return None
    return os.path.dirname(path[: next(_GLOB.finditer(path)).start()]) or "/"


def _match(folder: Location, patterns: list[str]) -> list[Location]:
    """Return what matches below a folder of a storage, with one pattern per level."""
    pattern, *rest = patterns
    if rest and not _GLOB.search(pattern):
        return _match(folder.join(pattern), rest)
    try:
        entries = folder.list()
    except MissingError:
        return []
    found: list[Location] = []
    for entry in entries:
        name = folder.relative(entry)
        if fnmatch.fnmatchcase(name, pattern) and (name[0] != "." or pattern[0] == "."):
            if not rest:
                found.append(folder.join(name))
            elif entry.type == pafs.FileType.Directory:
                found += _match(folder.join(name), rest)
    return found
