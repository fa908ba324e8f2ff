"""A real browser, driven through --remote-debugging-pipe with nothing but the standard library.

Chromium reads commands of the DevTools protocol from descriptor 3 and writes answers and events to
4, each a JSON object ended by NUL.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
_PATIENCE = 60.0
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # as root, and the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
)


@dataclass
class Page:
    """One tab. `events` are those of the domains Network, Runtime, Log and Page, in order."""

    to: int
    come: int
    session: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    _number: int = 0
    _rest: bytes = b""

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command. Raises AssertionError where the browser refuses it."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            if "method" in answer:
                self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression gives, as JSON."""
        found = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, url: str, *, width: int = 1280, height: int = 900) -> None:
        """Load a page and wait until it is drawn."""
        self.size(width, height)
        self.send("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")
        self.settle()

    def size(self, width: int, height: int) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def theme(self, scheme: str) -> None:
        """What the person's system asks for: light or dark."""
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=media)

    def settle(self) -> None:
        """Two frames: what was asked for has been laid out and painted."""
        frames = "requestAnimationFrame(() => requestAnimationFrame(done))"
        self.evaluate(f"new Promise((done) => {frames})")

    def wait_for(self, condition: str) -> None:
        end = time.monotonic() + _PATIENCE
        while not self.evaluate(condition):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.05)

    def point(self, x: float, y: float, kind: str = "mouseMoved", **params: Any) -> None:
        """The mouse, as the system would report it."""
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **params)

    def click(self, selector: str) -> None:
        box = self.box(selector)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.point(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.point(x, y, kind, button="left", clickCount=1)
        self.settle()

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.point(*start)
        self.point(*start, "mousePressed", button="left", clickCount=1)
        self.point(*end, "mouseMoved", button="left", buttons=1)
        self.point(*end, "mouseReleased", button="left", clickCount=1)
        self.settle()

    def box(self, selector: str) -> dict[str, float]:
        """Where an element is, scrolled into view."""
        found: dict[str, float] = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); return e.getBoundingClientRect().toJSON(); })()"
        )
        return found

    def picture(self, path: Path) -> None:
        """All of the page as a PNG, not only what fits the window."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def requests(self) -> list[str]:
        """Every address that the page asked for, with whatever scheme."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[dict[str, Any]]:
        """Console messages, uncaught exceptions, entries of the log, dialogs."""
        kinds = (
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
        )
        return [event for event in self.events if event["method"] in kinds]

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self.come], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self.come, 1 << 20) if ready else b""
            assert data, "the browser says nothing any more"
            self._rest += data
        message, self._rest = self._rest.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A browser with a profile of its own in `folder`, and one empty tab."""
    assert BROWSER is not None, "apt-get install chromium"
    their_in, to = os.pipe()
    come, their_out = os.pipe()
    # Out of the way of 3 and 4, which they are to become in the child.
    theirs = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (their_in, their_out)]
    log = str(folder / "chromium.log")
    pid = os.posix_spawn(
        BROWSER,
        [BROWSER, *_FLAGS, f"--user-data-dir={folder / 'profile'}"],
        {**os.environ, "HOME": str(folder)},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, theirs[0], 3),
            (os.POSIX_SPAWN_DUP2, theirs[1], 4),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setpgroup=0,
    )
    for end in (their_in, their_out, *theirs):
        os.close(end)
    try:
        yield _tab(Page(to, come))
    finally:
        os.close(to)
        os.close(come)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _tab(page: Page) -> Page:
    target = page.send("Target.createTarget", url="about:blank")["targetId"]
    page.session = page.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Network", "Log"):
        page.send(f"{domain}.enable")
    # A picture of the whole page has none: with them it would be laid out anew, and cut.
    page.send("Emulation.setScrollbarsHidden", hidden=True)
    return page
