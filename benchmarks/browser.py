"""A page in headless Chromium, driven over a pipe: what it says, asks for, and looks like."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["CHROMIUM", "Browser", "open_page"]

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    "--no-first-run",
)


class Browser:
    """A page that is open.

    Attributes
    ----------
    said
        What came to the console, and exceptions.
    asked
        Addresses that were asked for, without those inside the page itself.
    """

    def __init__(self, to: int, back: int) -> None:
        self.said, self.asked = list[str](), list[str]()
        self._to, self._back, self._number, self._rest, self._session = to, back, 0, b"", ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the DevTools protocol and return its result; raises RuntimeError where it fails."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        os.write(
            self._to, json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0"
        )
        while True:
            found = self._read()
            if found.get("id") == self._number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']['message']}")
                return found["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not (data := os.read(self._back, 1 << 20)):
                raise RuntimeError("The browser has ended.")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        method, params = found.get("method"), found.get("params", {})
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(json.dumps(params)[:500])
        if method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("data:", "blob:")):
            self.asked.append(params["request"]["url"])
        return found

    def open(self, page: Path, width: int, height: int, *, dark: bool = False) -> None:
        """Open a file in a window of that size, and wait until it is loaded."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.said, self.asked = [], []
        self.call("Page.navigate", url=page.resolve().as_uri())
        while self.evaluate("document.readyState") != "complete":
            time.sleep(0.05)

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression, awaited where it is a promise."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"])[:500])
        return done["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, by their names."""
        for key in keys:
            letter = {"text": key} if len(key) == 1 else {}
            code = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}.get(
                key, 0
            )
            about = {"key": key, "windowsVirtualKeyCode": code, **({"text": "\r"} if key == "Enter" else letter)}
            self.call("Input.dispatchKeyEvent", type="keyDown", **about)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def drag(self, *corners: tuple[float, float]) -> None:
        """Press the button of the mouse at the first of some places, move over the others, and let go."""
        (x, y), *rest = corners
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
        for x, y in rest:
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)

    def shoot(self, path: Path) -> None:
        """Write what is seen as a .png."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def open_page() -> Iterator[Browser]:
    """Start a browser with an empty page, which ends with the block."""
    (there, to), (back, here) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(prefix="tlcache-browser-", ignore_cleanup_errors=True) as folder:
        shell = f'exec "$0" "$@" 3<&{there} 4>&{here}'  # where it looks for the pipes
        process = subprocess.Popen(
            ["bash", "-c", shell, str(CHROMIUM), *_FLAGS, f"--user-data-dir={folder}"],
            pass_fds=(there, here),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(here)
        try:
            yield Browser(to, back)
        finally:
            os.close(to)
            os.close(back)
            process.terminate()
            process.wait(20)
