"""Receives reports, and checks each one's size, rate, form, time, order and signature.

The checks come in this order, and a refusal has a status and a reason:

    413  the report is too large
    429  there are too many reports; try again later
    400  it is malformed, too old or too new, or not newer than the wallet's last report
    401  the wallet that it names did not sign it

Each wallet's last timestamp is on disk before the answer is sent, and is kept longer than a report
may be old. So no signature is accepted twice, not even across restarts.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec

from daemon.oracle.reports import MAX_BODY_BYTES, BadReport, read_report
from protocol.chain.keccak import account_bytes, address_of

# The API's own limit.
SKEW_S = 60
# How long a wallet's last timestamp is kept, far longer than a report may be old.
KEPT_S = 10 * SKEW_S
# How many reports a sender may send at once, and after how many seconds it may send another.
BURST, REFILL_S = 20, 1.0
MAX_SENDERS = 4096
# 5 MB. New wallets beyond this number wait until old ones are forgotten.
MAX_WALLETS = 100_000

Recover = Callable[[str, bytes], str | None]
"""Returns the address that signed a text (EIP-191), or None for an invalid signature."""


class ReportReply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a report. `reason` is one fixed word, and `what` is a sentence."""

    status: int
    reason: str
    what: str = ""


ACCEPTED = ReportReply(status=200, reason="ok")


class ReportReceiver:
    """Reports of any wallets. Blocking; used by one thread at a time."""

    def __init__(self, path: Path | None, recover: Recover, now: Callable[[], float]) -> None:
        """`path` is the database's; None keeps it in memory. `now` gives unix seconds."""
        self._recover, self._now = recover, now
        # Allowance, and when it was that.
        self._senders: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._database = sqlite3.connect(
            ":memory:" if path is None else path, isolation_level=None, check_same_thread=False
        )
        self._database.execute("PRAGMA journal_mode=WAL")
        # The timestamp must survive a power failure, or the report could be accepted again.
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS reports"
            " (wallet BLOB PRIMARY KEY, last INTEGER NOT NULL, tokens TEXT NOT NULL)"
        )

    def close(self) -> None:
        self._database.close()

    def accept(self, path: str, body: bytes, sender: str) -> ReportReply:
        """Check and count a report. The rate is limited for each `sender`, the client's address."""
        if len(body) > MAX_BODY_BYTES:
            return ReportReply(
                status=413, reason="oversized", what=f"A report has at most {MAX_BODY_BYTES} bytes."
            )
        if not self._allowed(sender):
            return ReportReply(
                status=429, reason="rate", what=f"One report a second is accepted, {BURST} at once."
            )
        try:
            report = read_report(path, body)
        except BadReport as error:
            return ReportReply(status=400, reason="malformed", what=str(error))
        now = self._now()
        if abs(now - report.timestamp) > SKEW_S:
            return ReportReply(
                status=400,
                reason="skew",
                what=f"The timestamp is {report.timestamp - now:+.0f} s from now; "
                f"{SKEW_S} s are allowed.",
            )
        wallet = account_bytes("0x" + report.wallet[2:].lower())
        last = self._last(wallet)
        if last is not None and report.timestamp <= last:
            return ReportReply(
                status=400,
                reason="replay",
                what=f"The timestamp is not later than the wallet's last one, {last}.",
            )
        if self._recover(report.message, report.signature) != address_of(wallet):
            return ReportReply(
                status=401,
                reason="signature",
                what="The report is not signed by the wallet it names.",
            )
        if last is None and not self._room(now):
            return ReportReply(
                status=429,
                reason="full",
                what="Too many wallets reported lately; try again later.",
            )
        self._database.execute(
            "INSERT INTO reports VALUES (?, ?, ?)"
            " ON CONFLICT(wallet) DO UPDATE SET last = excluded.last, tokens = ?",
            (
                wallet,
                report.timestamp,
                str(report.tokens),
                str(self.tokens(report.wallet) + report.tokens),
            ),
        )
        return ACCEPTED

    def tokens(self, wallet: str) -> int:
        """Return everything that a wallet reported, as far as it is kept."""
        row = self._database.execute(
            "SELECT tokens FROM reports WHERE wallet = ?",
            (account_bytes("0x" + wallet[2:].lower()),),
        ).fetchone()
        return int(row[0]) if row else 0

    def _last(self, wallet: bytes) -> int | None:
        row = self._database.execute(
            "SELECT last FROM reports WHERE wallet = ?", (wallet,)
        ).fetchone()
        return int(row[0]) if row else None

    def _room(self, now: float) -> bool:
        (count,) = self._database.execute("SELECT COUNT(*) FROM reports").fetchone()
        if count < MAX_WALLETS:
            return True
        self._database.execute("DELETE FROM reports WHERE last < ?", (int(now) - KEPT_S,))
        (count,) = self._database.execute("SELECT COUNT(*) FROM reports").fetchone()
        return int(count) < MAX_WALLETS

    def _allowed(self, sender: str) -> bool:
        now = self._now()
        allowance, at = self._senders.pop(sender, (float(BURST), now))
        allowance = min(float(BURST), allowance + max(0.0, now - at) / REFILL_S)
        allowed = allowance >= 1.0
        self._senders[sender] = (allowance - 1.0 if allowed else allowance, now)
        while len(self._senders) > MAX_SENDERS:
            # This sender was silent longest, so its allowance is full again, or nearly.
            self._senders.popitem(last=False)
        return allowed
