"""Sending reports: certified work waits in a durable buffer until the oracle took it; only then is
it gone.

What was certified and not reported is the difference of two cumulative figures, what certificates
say and what the oracle took, and the latter is written down after each success: a POST that fails,
a restart and a lost answer drop nothing. After a lost answer the same work is reported once more,
under a later timestamp: the API has no way to ask what it took.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import trio

from daemon.disk.atomic import write_atomically
from daemon.oracle.reports import (
    LEGACY_PATH,
    METRICS_PATH,
    Usage,
    legacy_body,
    legacy_message,
    legacy_payload,
    metrics_body,
    metrics_message,
)
from protocol.chain.keccak import Address
from protocol.journal import JournalEvent, Warned
from protocol.ports.disk import DiskFull

REPORTED_FILE = "oracle"
POST_TIMEOUT_S = 10.0
# An hour of work is never more than a minute away from being told.
EVERY_S = 60.0

Sign = Callable[[str], bytes]
Post = Callable[[str, bytes], int]
"""Sends a body to a URL and gives the status. Raises `OSError` where nobody answers."""


class ReportedTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What the oracle has taken: cumulative samples and rounds, and the last report's timestamp."""

    samples: int = 0
    rounds: int = 0
    timestamp: int = 0


def post_json(url: str, body: bytes) -> int:
    """The real `Post`."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=POST_TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


class OracleReporter:
    """One wallet's reports to one oracle. Blocking, but for `run`."""

    def __init__(
        self,
        *,
        url: str,
        legacy: bool,
        wallet: Address,
        sign: Sign,
        folder: Path,
        figures: Callable[[], tuple[int, int]],
        record: Callable[[JournalEvent], None],
        now: Callable[[], float] = time.time,
        send: Post = post_json,
    ) -> None:
        """`figures` gives cumulative certified samples and rounds; `sign` the EIP-191 signature of
        a text.
        """
        self._url = url.rstrip("/") + (LEGACY_PATH if legacy else METRICS_PATH)
        self._legacy, self._wallet, self._sign, self._figures = legacy, wallet, sign, figures
        self._record, self._now, self._send = record, now, send
        self._path = folder / REPORTED_FILE
        self._began_s = now()
        self._failing = ""
        self.reported = self._load()

    async def run(self, offload: Callable[[Callable[[], object]], Awaitable[object]]) -> None:
        """Report every minute until cancelled."""
        while True:
            await offload(self.report)
            await trio.sleep(EVERY_S)

    def report(self) -> bool:
        """Report what waits. Whether there is nothing left to tell."""
        samples, rounds = self._figures()
        if samples <= self.reported.samples:
            return True
        # Strictly increasing, also after the clock was set back.
        timestamp = max(int(self._now()), self.reported.timestamp + 1)
        usage = Usage(
            tokens=samples - self.reported.samples,
            requests=max(rounds - self.reported.rounds, 0),
            latency_ms=0.0,
            uptime_s=max(int(self._now() - self._began_s), 0),
        )
        try:
            status = self._send(self._url, self._body(usage, timestamp))
        except (OSError, ValueError) as error:
            return self._failed(f"the oracle does not answer: {error}")
        if not 200 <= status < 300:
            return self._failed(f"the oracle refused with {status}")
        self._failing = ""
        self.reported = ReportedTotals(samples=samples, rounds=rounds, timestamp=timestamp)
        try:
            write_atomically(self._path, [memoryview(msgspec.json.encode(self.reported))])
        except DiskFull as full:
            self._record(
                Warned(
                    code="ORACLE", message=f"what the oracle took could not be written down: {full}"
                )
            )
        return True

    def _body(self, usage: Usage, timestamp: int) -> bytes:
        if self._legacy:
            payload = legacy_payload(self._wallet, usage, timestamp)
            return legacy_body(payload, self._sign(legacy_message(payload)))
        return metrics_body(
            self._wallet,
            usage,
            timestamp,
            self._sign(metrics_message(self._wallet, usage.tokens, timestamp)),
        )

    def _failed(self, reason: str) -> bool:
        if reason != self._failing:  # said once, tried again every minute
            self._record(Warned(code="ORACLE", message=f"{reason}; the report waits"))
        self._failing = reason
        return False

    def _load(self) -> ReportedTotals:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=ReportedTotals)
        except FileNotFoundError:
            return ReportedTotals()
        except (OSError, msgspec.DecodeError, ValueError) as error:
            self._record(
                Warned(
                    code="ORACLE",
                    message=f"{self._path} cannot be read, reporting from the beginning: {error}",
                )
            )
            return ReportedTotals()
