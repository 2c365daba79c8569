"""Usage reports over HTTP: reads each body within its limits, and verifies one report at a time.

Verification runs in a thread of its own, so that it does not delay the page.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import web

from daemon.oracle.receiver import ReportReceiver, ReportReply
from daemon.oracle.reports import LEGACY_PATH, MAX_BODY_BYTES, METRICS_PATH

REPORT_PATHS = (LEGACY_PATH, METRICS_PATH)
# Time for the body; a report is one packet.
BODY_S = 5.0
# Each report takes a few milliseconds, so a full queue takes a fifth of a second.
MAX_WAITING = 64


class ReportQueue:
    """Receives reports. Belongs to the web thread; call `close` when its loop has ended."""

    def __init__(self, path: Path) -> None:
        """`path` is the database of the receiver, which is opened with the first report."""
        self._path = path
        self._receiver: ReportReceiver | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reports")
        self._waiting = 0

    async def accept(self, request: web.BaseRequest) -> ReportReply:
        """Read and verify one report. Returns the reply to its sender."""
        if (request.content_length or 0) > MAX_BODY_BYTES:
            return ReportReply(
                status=413, reason="oversized", what=f"A report has at most {MAX_BODY_BYTES} bytes."
            )
        if self._waiting >= MAX_WAITING:
            return ReportReply(
                status=429, reason="busy", what="Too many reports at once; try again."
            )
        self._waiting += 1
        try:
            body = await asyncio.wait_for(self._body(request), BODY_S)
            sender = request.remote or ""
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._verify, request.path, body, sender
            )
        except TimeoutError:
            return ReportReply(
                status=400,
                reason="timeout",
                what=f"The report did not arrive within {BODY_S:g} s.",
            )
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Wait for the report that is being verified, then close the database."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._receiver is not None:
            self._receiver.close()

    async def _body(self, request: web.BaseRequest) -> bytes:
        """The body, cut one byte above the limit, so that the receiver sees that it is too long."""
        body = bytearray()
        while len(body) <= MAX_BODY_BYTES:
            part = await request.content.read(MAX_BODY_BYTES + 1 - len(body))
            if not part:
                break
            body += part
        return bytes(body)

    def _verify(self, path: str, body: bytes, sender: str) -> ReportReply:
        if self._receiver is None:
            # eth-account takes half a second, which only an observer that gets reports needs.
            from daemon.wallet.keystore import recover_text  # noqa: PLC0415

            self._receiver = ReportReceiver(self._path, recover_text, time.time)
        return self._receiver.accept(path, body, sender)
