"""A page in headless Chromium, driven over its DevTools protocol: `with Browser(folder) as browser, browser.page() as page`."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# the page itself, and nothing that a browser asks its vendor on its own account
QUIET = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --no-default-browser-check --force-color-profile=srgb"
).split()
START_SECONDS = 60.0
# for one answer, and for what a page is waited for to show
PATIENCE = 30.0

_KEYS = {
    "Enter": 13,
    "Escape": 27,
    "ArrowDown": 40,
    "ArrowUp": 38,
    "ArrowLeft": 37,
    "ArrowRight": 39,
    "Home": 36,
    "End": 35,
    "PageDown": 34,
    "PageUp": 33,
}


class PageError(AssertionError):
    """A page did not do what it was asked."""


class Browser:
    """A browser of its own, with nothing in it."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        self._folder = folder / "browser"
        command = [CHROMIUM, *QUIET, f"--user-data-dir={self._folder}", "--remote-debugging-port=0", "about:blank"]
        environment = {**os.environ, "HOME": str(folder)}
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        port, path = self._address()
        self._connecting = connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None)
        self._socket = self._connecting.__enter__()
        self._number = 0
        self._pages: dict[str, Page] = {}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._socket.send(json.dumps({"id": 0, "method": "Browser.close"}))
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
        finally:
            self._connecting.__exit__(kind, error, trace)
            self._process.wait()

    def _address(self) -> tuple[int, str]:
        """Wait for the browser to say where it listens: it writes a file."""
        file = self._folder / "DevToolsActivePort"
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise PageError(f"the browser ended with {self._process.returncode}")
            if file.exists() and len(lines := file.read_text().split("\n")) >= 2:
                return int(lines[0]), lines[1]
            time.sleep(0.02)
        self._process.kill()
        self._process.wait()
        raise PageError("the browser did not start")

    @property
    def socket(self) -> ClientConnection:
        return self._socket

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        self._socket.send(json.dumps(message))
        while True:
            answer: dict[str, Any] = json.loads(self._socket.recv(PATIENCE))
            if answer.get("id") == number:
                if "error" in answer:
                    raise PageError(f"{method}: {answer['error'].get('message')}")
                return answer["result"]
            page = self._pages.get(answer.get("sessionId", ""))
            if page is not None and "method" in answer:
                page.events.append(answer)

    def page(self, width: int = 1400, height: int = 900) -> Page:
        """Open an empty page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, target, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        return page


class Page:
    """A page. `events` are what the protocol told of it, oldest first."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session
        self.events: deque[dict[str, Any]] = deque(maxlen=20_000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def resize(self, width: int, height: int = 900) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        """Have the system prefer `light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url: str) -> None:
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer

    def reload(self) -> None:
        self.do("document.documentElement.dataset.ready = ''")
        self.call("Page.reload")

    def do(self, expression: str) -> Any:
        """Evaluate an expression, await it if it is a promise, and return its value."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise PageError(f"{expression[:200]}: {details.get('exception', {}).get('description') or details.get('text')}")
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = PATIENCE) -> Any:
        """Return the value of an expression as soon as it is true."""
        until = time.monotonic() + seconds
        # asked once a frame, in the page; a page that loads anew meanwhile is asked again
        script = f"""new Promise(done => {{
            const until = performance.now() + 2000
            const look = () => {{ let found; try {{ found = {expression} }} catch (error) {{ found = null }}
                if (found || performance.now() > until) done(found); else requestAnimationFrame(look) }}
            look() }})"""
        while time.monotonic() < until:
            try:
                found = self.do(script)
            except PageError as error:
                # the page was left for another one
                if "navigated" in str(error) or "context" in str(error) or "closed" in str(error):
                    continue
                raise
            if found:
                return found
        raise PageError(f"not so after {seconds:g} s: {expression}; the page says: {self.do('document.body.innerText')[:2000]}")

    def text(self, selector: str) -> str:
        """Return the text of an element as it is shown."""
        found = self.do(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")
        assert isinstance(found, str), f"no element {selector}"
        return found

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        code = _KEYS.get(key) or (ord(key.upper()) if len(key) == 1 and key.isalnum() else 0)
        parameters: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
        if len(key) == 1:
            parameters["text"] = key
        elif key == "Enter":
            parameters["text"] = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown", **parameters)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        self.do(f"document.querySelector({json.dumps(selector)}).click()")

    def picture(self, path: Path) -> Path:
        """Save what is seen."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path

    def faults(self) -> list[str]:
        """Return what went wrong in the page so far: exceptions, and what the console was told of errors and broken policies."""
        self.do("1")
        found = []
        for event in self.events:
            method, told = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                details = told["exceptionDetails"]
                found.append(details.get("exception", {}).get("description") or details.get("text", ""))
            elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
                found.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
            elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
                found.append(str(told["args"]))
        return found
