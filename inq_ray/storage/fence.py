"""What links in a folder of data may lead to: what lies in that folder, and nothing else of this machine."""

import os
from dataclasses import dataclass

from inq_ray.files.shown import escaped


@dataclass(frozen=True)
class Fence:
    """A folder of this machine that links within it must not lead out of. The folder itself may be a link.

    A snapshot in a cache of the Hugging Face hub is made of links to the folder `blobs` of the same repository, which
    belongs to it.

    Attributes:
        folder: Its absolute path, as given.
        real: The same without links.
        blobs: That folder, without links, where the folder lies in such a snapshot.
    """

    folder: str
    real: str
    blobs: str | None = None

    @classmethod
    def around(cls, folder: str) -> "Fence":
        """Return the fence around a folder, there or not."""
        real = os.path.realpath(folder)
        return cls(folder, real, _blobs(real))

    def holds(self, real: str) -> bool:
        """Return whether a path without links lies in the folder, or is the folder."""
        folders = (self.real,) if self.blobs is None else (self.real, self.blobs)
        return any(real == folder or real.startswith(folder.rstrip("/") + "/") for folder in folders)

    def check(self, path: str) -> None:
        """Refuse a path below the folder that leads out of it by a link, its own or one on the way.

        Raises:
            ValueError: It does; one line that names the first such link.
        """
        if self.holds(target := os.path.realpath(path)):
            return
        link = self._link_on_the_way_to(path)
        raise ValueError(
            f"{shown(link)} is a link that leads to {shown(target)}, out of the folder of data {shown(self.folder)}:"
            " put there what it leads to, or allow such links by --follow-links, if you trust who made the folder"
        )

    def holds_open(self, file: int, path: str) -> bool:
        """Return whether an open file lies in the folder, by whatever links it was found.

        Args:
            file: Its descriptor.
            path: By which it was opened.
        """
        try:
            real = os.readlink(f"/proc/self/fd/{file}")
        except OSError:  # no /proc
            real = os.path.realpath(path)
        return self.holds(real)

    def _link_on_the_way_to(self, path: str) -> str:
        """Return the first part of a path below the folder that does not lie in it."""
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
    r"""Return a path that can be printed: one that is not UTF-8 has \xff in it, control characters are escaped too."""
    return escaped(os.fsencode(path).decode("utf-8", "backslashreplace"))
