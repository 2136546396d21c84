"""File systems in memory that are full soon, and folders that are mounted and unmounted."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk_at(folder: Path, *, megabytes: int) -> Iterator[Path]:
    """Mount one for the time of the block; the test is skipped where this user may not."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this user may not mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Mounted:
    """A folder that is mounted at another; the test is skipped where this user may not mount.

    Args:
        folder: What is mounted.
        at: Where, a folder below which it hides what lies on the disk.
    """

    def __init__(self, folder: Path, at: Path) -> None:
        self._command = ["mount", "--bind", str(folder), str(at)]
        self._at = at
        if shutil.which("mount") is None or subprocess.run(self._command, check=False, capture_output=True).returncode:
            pytest.skip("this user may not mount a folder")

    def mount(self) -> None:
        """Mount it again."""
        subprocess.run(self._command, check=True)

    def unmount(self) -> None:
        """Unmount it, whoever has files open there."""
        subprocess.run(["umount", "-l", str(self._at)], check=True)
