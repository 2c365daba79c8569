"""Usage reports over HTTP: reads a body within its bounds, and has the receiver judge it in a
thread of its own, one at a time.
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
BODY_S = 5.0  # a report is one packet
# Each takes a few milliseconds: a queue of a fifth of a second.
MOST_WAITING = 64


class ReportQueue:
    """Belongs to the web thread; `close` when its loop has ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._receiver: ReportReceiver | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reports")
        self._waiting = 0

    async def take(self, request: web.BaseRequest) -> ReportReply:
        """What to answer to a report."""
        if (request.content_length or 0) > MAX_BODY_BYTES:
            return ReportReply(
                status=413, reason="oversized", what=f"A report has at most {MAX_BODY_BYTES} bytes."
            )
        if self._waiting >= MOST_WAITING:
            return ReportReply(
                status=429, reason="busy", what="Too many reports at once; try again."
            )
        self._waiting += 1
        try:
            body = await asyncio.wait_for(self._body(request), BODY_S)
            sender = request.remote or ""
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._judge, request.path, body, sender
            )
        except TimeoutError:
            return ReportReply(
                status=400, reason="timeout", what=f"The report did not come within {BODY_S:g} s."
            )
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Waits for the report being judged."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._receiver is not None:
            self._receiver.close()

    async def _body(self, request: web.BaseRequest) -> bytes:
        """Up to one byte more than a report may have."""
        body = bytearray()
        while len(body) <= MAX_BODY_BYTES:
            part = await request.content.read(MAX_BODY_BYTES + 1 - len(body))
            if not part:
                break
            body += part
        return bytes(body)

    def _judge(self, path: str, body: bytes, sender: str) -> ReportReply:
        if self._receiver is None:
            from daemon.wallet.keystore import recover_text  # noqa: PLC0415  # eth-account, with the first report

            self._receiver = ReportReceiver(self._path, recover_text, time.time)
        return self._receiver.accept(path, body, sender)
