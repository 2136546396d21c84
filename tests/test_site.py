"""`make docs`: the site is built without a warning, its links lead somewhere, and it loads nothing from other hosts."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import inq_ray
from tests.conftest import REPO

pytest.importorskip("mkdocs", reason="the extra docs is not installed")

pytestmark = [pytest.mark.system, pytest.mark.long]


@dataclass
class Html(HTMLParser):
    """What a page holds: anchors, links, and files that a browser loads by itself."""

    text: str
    anchors: set[str] = field(default_factory=lambda: {"", "top"})
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.anchors |= {known[name] for name in ("id", "name") if name in known}
        if tag == "a" and "href" in known:
            self.links.append(known["href"])
        elif "src" in known or (tag == "link" and known.get("rel") not in ("canonical", "next", "prev")):
            self.loaded.append(known.get("src") or known["href"])
        self.loaded += [part.split()[0] for part in known.get("srcset", "").split(",") if part.strip()]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=REPO, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=900,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Html]:
    """Its pages by path."""
    return {path: Html(path.read_text()) for path in sorted(site.rglob("*.html"))}


def test_every_document_is_a_page(site: Path) -> None:
    documents = [path.relative_to(REPO / "docs") for path in (REPO / "docs").rglob("*.md")]
    expected = {str(path.with_suffix(".html")).replace("README", "index") for path in documents}
    expected |= {"index.html", "changelog.html", "examples.html", "digits.html", "reference.html"}
    assert {path for path in expected if not (site / path).is_file()} == set()


def test_links_and_anchors_lead_somewhere(pages: dict[Path, Html]) -> None:
    missing = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are from the root of a host
            continue
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            there = target.is_file() and (target not in pages or unquote(parts.fragment) in pages[target].anchors)
            missing += [] if there else [f"{path.name}: {link}"]
    assert missing == []


def test_nothing_is_loaded_from_other_hosts(site: Path, pages: dict[Path, Html]) -> None:
    assert [link for page in pages.values() for link in page.loaded if re.match(r"(https?:)?//", link)] == []
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)'\"]*", styles) == []


def test_the_reference_has_every_public_name(site: Path, pages: dict[Path, Html]) -> None:
    public = {f"inq_ray.{name}" for name in inq_ray.__all__ if name != "__version__"}
    assert public <= pages[site / "reference.html"].anchors
