"""Taking reports: each is checked for size, rate, form, time, order and signature, in this order,
and refused with a status and a reason.

    413  too large                    400  no report, too old or too new, or not newer than the wallet's last one
    429  too many, try again later    401  not signed by the wallet it names

The last timestamp of each wallet is on disk before the answer is given, and kept for longer than a
report may be old: a signature that is still within its time can never be used twice, whatever is
restarted in between.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec

from daemon.oracle.reports import MAX_BODY_BYTES, BadReport, read_report
from protocol.chain.keccak import account_bytes, address_of

SKEW_S = 60  # the API's own
# How long a wallet's last timestamp outlives the last instant at which a replay could be taken.
KEPT_S = 10 * SKEW_S
# Reports of one sender at once, and seconds until it may send another.
BURST, REFILL_S = 20, 1.0
MOST_SENDERS = 4096
# 5 MB; above it new wallets wait until old ones are forgotten.
MOST_WALLETS = 100_000

Recover = Callable[[str, bytes], str | None]
"""The address that signed a text (EIP-191) with 65 bytes, None where none did."""


class ReportReply(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a report. `reason` is one word that does not change, `what` a sentence."""

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
        # The timestamp must outlive a power cut, or the report could be taken again.
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS reports (wallet BLOB PRIMARY KEY, last INTEGER NOT NULL, tokens TEXT NOT NULL)"
        )

    def close(self) -> None:
        self._database.close()

    def accept(self, path: str, body: bytes, sender: str) -> ReportReply:
        """What to answer. `sender` is who is counted for the rate: the client's address."""
        if len(body) > MAX_BODY_BYTES:
            return ReportReply(
                status=413, reason="oversized", what=f"A report has at most {MAX_BODY_BYTES} bytes."
            )
        if not self._allowed(sender):
            return ReportReply(
                status=429, reason="rate", what=f"One report a second, {BURST} at once."
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
                what=f"The timestamp is {report.timestamp - now:+.0f} s from now; {SKEW_S} s are allowed.",
            )
        wallet = account_bytes("0x" + report.wallet[2:].lower())
        last = self._last(wallet)
        if last is not None and report.timestamp <= last:
            return ReportReply(
                status=400,
                reason="replay",
                what=f"The timestamp is not after {last}, that of the wallet's last report.",
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
                what="Too many wallets have reported lately; try again later.",
            )
        self._database.execute(
            "INSERT INTO reports VALUES (?, ?, ?) ON CONFLICT(wallet) DO UPDATE SET last = excluded.last, tokens = ?",
            (
                wallet,
                report.timestamp,
                str(report.tokens),
                str(self.tokens(report.wallet) + report.tokens),
            ),
        )
        return ACCEPTED

    def tokens(self, wallet: str) -> int:
        """What a wallet has reported in all, as far as it is kept."""
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
        if count < MOST_WALLETS:
            return True
        self._database.execute("DELETE FROM reports WHERE last < ?", (int(now) - KEPT_S,))
        (count,) = self._database.execute("SELECT COUNT(*) FROM reports").fetchone()
        return int(count) < MOST_WALLETS

    def _allowed(self, sender: str) -> bool:
        now = self._now()
        allowance, at = self._senders.pop(sender, (float(BURST), now))
        allowance = min(float(BURST), allowance + max(0.0, now - at) / REFILL_S)
        allowed = allowance >= 1.0
        self._senders[sender] = (allowance - 1.0 if allowed else allowance, now)
        while len(self._senders) > MOST_SENDERS:
            # The one that was silent longest: its allowance is full again, or nearly.
            self._senders.popitem(last=False)
        return allowed
