"""The version is the same wherever it is written."""

import re

import inq_ray
from tests.conftest import REPO


def test_the_changelog_begins_with_this_version_and_its_date() -> None:
    releases = re.findall(r"^## \[(\d[^\]]*)\] - (\S+)$", (REPO / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[0][0] == inq_ray.__version__
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for _, date in releases)


def test_the_image_has_this_version() -> None:
    assert f"\nARG VERSION={inq_ray.__version__}\n" in (REPO / "docker/Dockerfile").read_text()
