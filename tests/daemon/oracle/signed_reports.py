"""Reports that a wallet signed, and a receiver that accepts them."""

from __future__ import annotations

from pathlib import Path

from daemon.oracle.receiver import ReportReceiver
from daemon.oracle.reports import (
    METRICS_PATH,
    Usage,
    legacy_body,
    legacy_message,
    legacy_payload,
    metrics_body,
    metrics_message,
)
from daemon.wallet.keystore import UnlockedWallet, recover_text, wallet_of

ONE = wallet_of((1).to_bytes(32, "big"))
TWO = wallet_of((2).to_bytes(32, "big"))
NOW = 1_770_000_000
USAGE = Usage(tokens=600, requests=3, latency_ms=1.5, uptime_s=60)
VECTOR = (
    '{"agent":"0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf",'
    '"processed_tokens":600,"timestamp":1770000000}'
)


def flat(
    timestamp: int = NOW,
    who: UnlockedWallet = ONE,
    *,
    usage: Usage = USAGE,
    signer: UnlockedWallet | None = None,
) -> bytes:
    signature = (signer or who).sign_text(metrics_message(who.address, usage.tokens, timestamp))
    return metrics_body(who.address, usage, timestamp, signature)


def older(timestamp: int = NOW, who: UnlockedWallet = ONE, *, usage: Usage = USAGE) -> bytes:
    payload = legacy_payload(who.address, usage, timestamp)
    return legacy_body(payload, who.sign_text(legacy_message(payload)))


class Desk:
    """A receiver whose clock the test sets."""

    def __init__(self, path: Path | None = None) -> None:
        self.now = float(NOW)
        self.receiver = ReportReceiver(path, recover_text, lambda: self.now)
        self.serial = 0

    def take(
        self, body: bytes, path: str = METRICS_PATH, sender: str | None = None
    ) -> tuple[int, str]:
        self.serial += 1
        verdict = self.receiver.accept(path, body, sender or f"client {self.serial}")
        return verdict.status, verdict.reason
