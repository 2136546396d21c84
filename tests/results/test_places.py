"""Where results are kept."""

import shutil
import subprocess

import pytest

from benchmarks.results.places import Places
from tests.conftest import REPO


def test_what_is_kept_goes_into_the_repository() -> None:
    """A bug once: the line that left out the folder of runs left out that of their records too."""
    if shutil.which("git") is None or not (REPO / ".git").exists():
        pytest.skip("not a git checkout: what it leaves out is not known")
    places = Places(REPO)
    kept = [places.runs / "a.json", places.choices / "a.json", places.weights / "a.safetensors", places.page]
    left_out = subprocess.run(
        ["git", "check-ignore", *map(str, kept)], cwd=REPO, check=False, capture_output=True, text=True
    )
    assert (left_out.returncode, left_out.stdout) == (1, "")
