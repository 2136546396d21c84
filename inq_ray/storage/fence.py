"""Fence around a folder of data: links in it may lead to files of that folder only."""

import os
from dataclasses import dataclass

from inq_ray.files.shown import escaped


@dataclass(frozen=True)
class Fence:
    """A local folder whose links must not lead out of it. The folder itself may be a link.

    A snapshot in a cache of the Hugging Face hub consists of links into the folder `blobs` of the same repository,
    which counts as part of it.

    Attributes:
        folder: Absolute path, as given.
        real: The same path with links resolved.
        blobs: The hub's `blobs` folder, with links resolved, if the folder is in such a snapshot.
    """

    folder: str
    real: str
    blobs: str | None = None

    @classmethod
    def around(cls, folder: str) -> "Fence":
        """Return the fence around a folder, which need not exist."""
        real = os.path.realpath(folder)
        return cls(folder, real, _blobs(real))

    def holds(self, real: str) -> bool:
        """Return whether a path with links resolved is the folder or in it."""
        folders = (self.real,) if self.blobs is None else (self.real, self.blobs)
        return any(real == folder or real.startswith(folder.rstrip("/") + "/") for folder in folders)

    def check(self, path: str) -> None:
        """Refuse a path whose own link, or a link on the way, leads out of the folder.

        Raises:
            ValueError: A link leads out; one line that names the first such link.
        """
        if self.holds(target := os.path.realpath(path)):
            return
        link = self._link_on_the_way_to(path)
        raise ValueError(
            f"{shown(link)} is a link to {shown(target)}, outside of the data folder {shown(self.folder)}:"
            " replace it by the file, or pass --follow-links if you trust the folder's author"
        )

    def holds_open(self, file: int, path: str) -> bool:
        """Return whether an open file is in the folder, however many links led to it.

        Args:
            file: File descriptor.
            path: Path by which it was opened.
        """
        try:
            real = os.readlink(f"/proc/self/fd/{file}")
        except OSError:  # no /proc
            real = os.path.realpath(path)
        return self.holds(real)

    def _link_on_the_way_to(self, path: str) -> str:
        """Return the first part of a path below the folder that is not in the folder."""
        reached = self.folder
        for part in os.path.relpath(path, self.folder).split("/"):
            reached = os.path.join(reached, part)
            if not self.holds(os.path.realpath(reached)):
                break
        return reached


def _blobs(real: str) -> str | None:
    """Return REPOSITORY/blobs of REPOSITORY/snapshots/COMMIT, or of a folder in it, unless it is a link itself."""
    repository, found, rest = real.rpartition("/snapshots/")
    blobs = f"{repository}/blobs"
    is_snapshot = found and rest and repository and os.path.isdir(blobs) and not os.path.islink(blobs)
    return blobs if is_snapshot else None


def shown(path: str) -> str:
    r"""Return a printable path: bytes that are not UTF-8 are written \xff, control characters are escaped too."""
    return escaped(os.fsencode(path).decode("utf-8", "backslashreplace"))
