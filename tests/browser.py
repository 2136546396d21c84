"""A headless Chromium, driven over a pipe by its DevTools protocol: pages as people see them."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
_SECONDS = 300.0


def find_chromium() -> str | None:
    """The program, by CHROMIUM or on the PATH; None where there is none."""
    given = os.environ.get("CHROMIUM")
    return given or next((path for name in _NAMES if (path := shutil.which(name))), None)


needs_chromium = pytest.mark.skipif(
    find_chromium() is None, reason="there is no Chromium on the PATH: apt install chromium, or set CHROMIUM"
)


class Browser:
    """One page of a running Chromium.

    Attributes:
        requests: addresses that pages have asked for, but for the pages' own.
        complaints: what pages wrote to the console, errors and violations of their policy among it.
    """

    def __init__(self, process: subprocess.Popen[bytes], write: int, read: int) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._process = process
        self._write = write
        self._read = read
        self._left = b""
        self._count = 0
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, page: Path, *, width: int = 1200, media: str = "screen", scheme: str = "light") -> None:
        """Open a file at a width in CSS pixels, and wait until it is loaded."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", media=media, features=features)
        self._call("Page.navigate", url=page.as_uri())
        deadline = time.monotonic() + _SECONDS
        while self.value("document.readyState") != "complete" or self.value("location.href") != page.as_uri():
            assert time.monotonic() < deadline, f"{page} is not loaded"
            time.sleep(0.05)

    def value(self, script: str) -> Any:
        """What an expression gives in the page."""
        return self._call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End the process."""
        self._session = None
        with contextlib.suppress(OSError, AssertionError):
            self._call("Browser.close")
        try:
            self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            data = os.read(self._read, 1 << 20)
            assert data, "Chromium has ended"
            self._left += data
        message, _, self._left = self._left.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent" if params.get("type") != "Document":
                self.requests.append(params["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(params)[:500])


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A running Chromium with its profile in a folder."""
    program = find_chromium()
    assert program is not None
    to_browser, write = os.pipe()
    read, from_browser = os.pipe()

    # Chromium reads from descriptor 3 and writes to 4.
    command = [
        "bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash", program, "--headless", "--no-sandbox",
        "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe",
        f"--user-data-dir={folder}", "about:blank",
    ]  # fmt: skip
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(command, pass_fds=(to_browser, from_browser), stdout=log, stderr=log)
    os.close(to_browser)
    os.close(from_browser)
    try:
        browser = Browser(process, write, read)
        try:
            yield browser
        finally:
            browser.close()
    finally:
        os.close(write)
        os.close(read)
        if process.poll() is None:
            process.kill()
            process.wait()
