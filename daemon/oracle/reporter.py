"""Reports to an oracle: certified work waits on disk until the oracle accepted it.

Work is certified samples, and tokens of receipts that a client and this node's stage signed. What
is not reported yet is the difference between two cumulative figures: what certificates and receipts
say, and what the oracle accepted. The second figure is written to disk after each
success, so a failed request, a restart and a lost answer drop nothing. After a lost answer the same
work is reported once more under a later timestamp, since the API cannot be asked what it accepted.
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
# Work waits at most a minute for its report.
EVERY_S = 60.0

Post = Callable[[str, bytes], int]
"""Sends a body to a URL and returns the HTTP status. Raises `OSError` if there is no answer."""


class OracleEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The oracle's base URL, and whether it has the older API."""

    url: str
    legacy: bool = False

    @property
    def report_url(self) -> str:
        return self.url.rstrip("/") + (LEGACY_PATH if self.legacy else METRICS_PATH)


class ReportSigner(msgspec.Struct, frozen=True, kw_only=True):
    """The wallet that reports. `sign` makes the EIP-191 signature of a text."""

    wallet: Address
    sign: Callable[[str], bytes]


class ReportedWork(msgspec.Struct, frozen=True, kw_only=True):
    """Cumulative figures: certified samples and rounds, and what receipts say of serving."""

    samples: int = 0
    rounds: int = 0
    tokens: int = 0
    requests: int = 0
    # The time for which clients waited for this node's stage.
    busy_ms: int = 0


class ReportedTotals(ReportedWork, frozen=True, kw_only=True):
    """What the oracle accepted, and the last report's timestamp."""

    timestamp: int = 0


def post_json(url: str, body: bytes) -> int:
    """Send a body over HTTP: the real `Post`."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=POST_TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


class OracleReporter:
    """Reports one wallet's certified work to one oracle. Only `run` does not block."""

    def __init__(
        self,
        *,
        oracle: OracleEndpoint,
        signer: ReportSigner,
        folder: Path,
        figures: Callable[[], ReportedWork],
        record: Callable[[JournalEvent], None],
        now: Callable[[], float] = time.time,
        send: Post = post_json,
    ) -> None:
        """Make a reporter and read from `folder` what was reported before.

        `figures` returns what certificates (`daemon.chain.certified_totals`) and receipts
        (`daemon.chain.served_work`) say.
        """
        self._oracle, self._signer, self._figures = oracle, signer, figures
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
        """Report the work that waits. Returns whether nothing is left to report."""
        now = self._beyond_reported()
        samples = now.samples - self.reported.samples
        tokens = now.tokens - self.reported.tokens
        if samples + tokens <= 0:
            return True
        # The oracle wants timestamps that rise, even if the clock was set back.
        timestamp = max(int(self._now()), self.reported.timestamp + 1)
        busy_ms = now.busy_ms - self.reported.busy_ms
        usage = Usage(
            tokens=samples + tokens,
            requests=now.rounds - self.reported.rounds + now.requests - self.reported.requests,
            # Samples have no latency.
            latency_ms=round(busy_ms / tokens, 3) if tokens else 0.0,
            uptime_s=max(int(self._now() - self._began_s), 0),
        )
        try:
            status = self._send(self._oracle.report_url, self._body(usage, timestamp))
        except (OSError, ValueError) as error:
            return self._failed(f"the oracle does not answer: {error}")
        if not 200 <= status < 300:
            return self._failed(f"the oracle refused with {status}")
        self._failing = ""
        self.reported = ReportedTotals(**msgspec.structs.asdict(now), timestamp=timestamp)
        try:
            write_atomically(self._path, [memoryview(msgspec.json.encode(self.reported))])
        except DiskFull as full:
            self._warn(f"cannot write what the oracle accepted: {full}")
        return True

    def _beyond_reported(self) -> ReportedWork:
        """Return the figures, none of them below what was reported.

        A disk that lost certificates or receipts makes figures that are lower for a while.
        """
        now, before = self._figures(), self.reported
        return ReportedWork(
            samples=max(now.samples, before.samples),
            rounds=max(now.rounds, before.rounds),
            tokens=max(now.tokens, before.tokens),
            requests=max(now.requests, before.requests),
            busy_ms=max(now.busy_ms, before.busy_ms),
        )

    def _body(self, usage: Usage, timestamp: int) -> bytes:
        wallet, sign = self._signer.wallet, self._signer.sign
        if self._oracle.legacy:
            payload = legacy_payload(wallet, usage, timestamp)
            return legacy_body(payload, sign(legacy_message(payload)))
        message = metrics_message(wallet, usage.tokens, timestamp)
        return metrics_body(wallet, usage, timestamp, sign(message))

    def _failed(self, reason: str) -> bool:
        # The same reason is reported once, and the report is tried again every minute.
        if reason != self._failing:
            self._warn(f"{reason}; the report waits")
        self._failing = reason
        return False

    def _load(self) -> ReportedTotals:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=ReportedTotals)
        except FileNotFoundError:
            return ReportedTotals()
        except (OSError, msgspec.DecodeError, ValueError) as error:
            self._warn(f"cannot read {self._path}, so reports begin anew: {error}")
            return ReportedTotals()

    def _warn(self, message: str) -> None:
        self._record(Warned(code="ORACLE", message=message))
