"""Reports in Chromium: nothing is loaded, nothing is too wide on a phone, and dark and print have their own colors."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from inq_ray.report.written import write_report
from tests.browser import Browser, chromium, needs_chromium
from tests.report.folders import write_run

pytest.importorskip("matplotlib", reason="matplotlib draws the charts and is not installed")
pytestmark = [pytest.mark.system, needs_chromium]

_LUMINANCE = """(() => {
    const probe = (element, name) => getComputedStyle(element)[name].match(/[\\d.]+/g).slice(0, 3).map(Number);
    const linear = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const light = rgb => rgb.map(c => linear(c / 255))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const paper = light(probe(document.body, 'backgroundColor'));
    const texts = [...document.querySelectorAll('h1, p, td, th, dd, dt, li, figcaption, svg text, code, .a, .b')];
    return texts.map(each => light(probe(each, each.namespaceURI.endsWith('svg') ? 'fill' : 'color')))
        .map(ink => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)).reduce((a, b) => Math.min(a, b));
})()"""
_TOO_WIDE = """[...document.querySelectorAll('body *')].filter(each => !each.closest('.scroll') &&
    each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 200))"""
_COVERED = """[...document.querySelectorAll('svg')].flatMap(svg => {
    const boxes = [...svg.querySelectorAll('text')].map(each => each.getBoundingClientRect());
    return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b => a.left < b.right - 1 && b.left < a.right - 1 &&
        a.top < b.bottom - 3 && b.top < a.bottom - 3)).map(() => svg.getAttribute('aria-label'));
})"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module", params=[True, False], ids=["finished", "failed"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_report(write_run(tmp_path_factory.mktemp("run"), finished=request.param)))


@pytest.mark.parametrize("width", [1200, 768, 390, 320])
def test_it_fits(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width)
    assert browser.value("document.scrollingElement.scrollWidth") == width
    assert browser.value(_TOO_WIDE) == []
    assert browser.value(_COVERED) == []


@pytest.mark.parametrize(("media", "scheme"), [("screen", "light"), ("screen", "dark"), ("print", "dark")])
def test_it_can_be_read(browser: Browser, page: Path, media: str, scheme: str) -> None:
    browser.open(page, media=media, scheme=scheme)
    is_dark = (media, scheme) == ("screen", "dark")
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(21, 24, 29)" if is_dark else "rgb(255, 255, 255)")
    assert browser.value(_LUMINANCE) >= 4.5  # WCAG's contrast of text


def test_nothing_is_loaded_and_nothing_goes_wrong(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.value("document.title") == "mine"
    assert browser.value("document.querySelectorAll('svg').length") > 0
    assert browser.value("document.querySelectorAll('script, link, img').length") == 0
    assert (browser.requests, browser.complaints) == ([], [])
