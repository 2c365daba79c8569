"""Debian's headless chromium, driven over its DevTools websocket.

All calls block, so that a plain test or a thread can use the browser:

    with chromium() as browser:
        browser.open("http://127.0.0.1:8765/")
        browser.wait_for("document.title.includes('round 3')", timeout_s=30)

See https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

# A cold start on two busy cores takes about 5 s.
START_S = 30.0
CALL_S = 20.0
FLAGS = (
    "--headless",
    # Root cannot use the sandbox, and the browser opens only our own page.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    # /dev/shm is tiny in containers.
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--mute-audio",
    "--remote-debugging-port=0",
)


def chromium_path() -> str | None:
    """Return the path of chromium; None if it is not installed."""
    return (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )


class Browser:
    """One tab of the browser.

    `problems` collects the errors of the console: exceptions, refused loads and logged errors.
    """

    def __init__(self, runner: asyncio.Runner, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._runner = runner
        self._socket = socket
        self._serials = itertools.count(1)
        self._tab: str | None = None
        self._loaded = False
        self.problems: list[str] = []

    def open(self, url: str) -> None:
        """Open `url` and wait until it is loaded."""
        self._loaded = False
        answer = self._call("Page.navigate", url=url)
        if answer.get("errorText"):
            raise AssertionError(f"{url}: {answer['errorText']}")
        while not self._loaded:
            self._runner.run(asyncio.wait_for(self._hear(), CALL_S))

    def evaluate(self, expression: str) -> Any:
        """Evaluate a JavaScript expression in the page, and await a promise."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = 10.0) -> None:
        """Wait until the expression is true in the page.

        Raises `AssertionError` with the page's text after `timeout_s`.
        """
        look = f"""new Promise(done => {{
            const end = performance.now() + {timeout_s * 1000:.0f};
            (function look() {{
                let seen = false;
                try {{ seen = !!({expression}); }} catch {{}}
                if (seen || performance.now() > end) done(seen); else setTimeout(look, 50);
            }})();
        }})"""
        answer = self._call(
            "Runtime.evaluate",
            timeout_s + CALL_S,
            expression=look,
            awaitPromise=True,
            returnByValue=True,
        )
        if answer["result"].get("value") is not True:
            text = self.evaluate("document.body ? document.body.innerText : ''")
            raise AssertionError(f"not true within {timeout_s} s: {expression}\n{text}")

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the window, and the preference for dark colours."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self._call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def press(self, key: str) -> None:
        """Press and release a key, such as "Tab", where the focus is."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}[key]
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path) -> None:
        """Write the whole page as PNG."""
        answer = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def script(self, enabled: bool) -> None:
        """Allow or forbid JavaScript in the next pages."""
        self._call("Emulation.setScriptExecutionDisabled", value=not enabled)

    def attach(self) -> None:
        """Open the tab. `chromium` calls this."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._tab = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def _call(self, method: str, limit_s: float = CALL_S, **params: Any) -> dict[str, Any]:
        return self._runner.run(asyncio.wait_for(self._talk(method, params), limit_s))

    async def _talk(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        serial = next(self._serials)
        message: dict[str, Any] = {"id": serial, "method": method, "params": params}
        if self._tab:
            message["sessionId"] = self._tab
        await self._socket.send_json(message)
        while True:
            said = await self._hear()
            if said.get("id") == serial:
                if "error" in said:
                    raise AssertionError(f"{method}: {said['error']}")
                return dict(said["result"])

    async def _hear(self) -> dict[str, Any]:
        said: dict[str, Any] = await self._socket.receive_json()
        self._note(said)
        return said

    def _note(self, said: dict[str, Any]) -> None:
        params = said.get("params", {})
        if said.get("method") == "Page.loadEventFired":
            self._loaded = True
        elif said.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif said.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif said.get("method") == "Runtime.consoleAPICalled" and params["type"] in (
            "error",
            "assert",
        ):
            self.problems.append(
                " ".join(str(part.get("value", part.get("description"))) for part in params["args"])
            )


def _debugger_address(process: subprocess.Popen[str]) -> str:
    """The websocket address that chromium prints when it listens."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "DevTools listening on" in line:
            return line.rpartition(" ")[2].strip()
    raise RuntimeError(f"chromium did not start:\n{''.join(said[-20:])}")


def _end(process: subprocess.Popen[str]) -> None:
    """End chromium and its children, which are one process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


async def _connect(address: str) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    session = aiohttp.ClientSession()
    try:
        return session, await session.ws_connect(address, max_msg_size=64 << 20)
    except BaseException:
        await session.close()
        raise


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a new browser with one empty tab, and remove all its files at the end."""
    path = chromium_path()
    if path is None:
        raise RuntimeError("chromium is not installed: apt-get install chromium")
    with tempfile.TemporaryDirectory(
        prefix="hypergpu-browser-", ignore_cleanup_errors=True
    ) as profile:
        command = [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        # Ends the wait for the address if chromium never prints it.
        watch = threading.Timer(START_S, _end, [process])
        # A full pipe would block chromium.
        drain = threading.Thread(target=lambda: [None for _ in process.stderr or ()], daemon=True)
        try:
            watch.start()
            address = _debugger_address(process)
            watch.cancel()
            drain.start()
            with asyncio.Runner() as runner:
                session, socket = runner.run(_connect(address))
                try:
                    browser = Browser(runner, socket)
                    browser.attach()
                    yield browser
                finally:
                    runner.run(session.close())
        finally:
            watch.cancel()
            _end(process)
            if drain.ident is not None:
                drain.join()
            if process.stderr:
                process.stderr.close()
