"""The two generations of the oracle's report: their bodies, and the exact bytes that are signed.

    metrics  POST /api/v1/metrics/report
             a flat body; EIP-191 over {"agent":..,"processed_tokens":..,"timestamp":..} in this
             order
    legacy   POST /api/v1/report
             {"payload": {...}, "signature": ..}
             EIP-191 over the payload as compact JSON with sorted keys

Numbers are signed as they were sent, so a body keeps its own spelling of them: 1.5 stays 1.5, and
2.0 stays 2.0. Unknown fields are refused, since the signature does not cover them.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from protocol.chain.keccak import Address

METRICS_PATH = "/api/v1/metrics/report"
LEGACY_PATH = "/api/v1/report"
# A report has 400 bytes, and each proof has a few words.
MAX_BODY_BYTES = 16 << 10

Count = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
Amount = Annotated[float, Meta(ge=0, le=1e12)]
AddressText = Annotated[str, Meta(pattern=r"^0x[0-9a-fA-F]{40}$")]
SignatureText = Annotated[str, Meta(pattern=r"^(0x)?[0-9a-fA-F]{130}$")]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a report: the work since the last accepted report."""

    tokens: int
    requests: int
    latency_ms: float
    uptime_s: int


class MetricsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The flat body, with the API's names."""

    wallet: AddressText
    tokensProcessed: Count
    avgLatencyMs: Amount
    requestCount: Count
    uptimeSeconds: Count
    timestamp: Count
    signature: SignatureText
    proofs: (
        Annotated[list[Annotated[str, Meta(max_length=256)]], Meta(max_length=32)] | UnsetType
    ) = UNSET


class LegacyPayload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part that is signed in the older API."""

    agent: AddressText
    processed_tokens: Count
    avg_latency_ms: Amount
    uptime_seconds: Count
    tasks_completed: Count
    timestamp: Count


class _Legacy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    payload: msgspec.Raw
    signature: SignatureText


class SignedReport(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded report, and the text that its signature must cover."""

    wallet: str
    tokens: int
    timestamp: int
    message: str
    signature: bytes


class BadReport(Exception):
    """A body is not a report. The message says why."""


def metrics_message(wallet: str, tokens: int, timestamp: int) -> str:
    """Return the text to sign for the flat body. The capitals of `wallet` count."""
    return f'{{"agent":{json.dumps(wallet)},"processed_tokens":{tokens},"timestamp":{timestamp}}}'


def legacy_message(payload: dict[str, Any]) -> str:
    """Return the text to sign for a payload."""
    return json.dumps(payload, sort_keys=True, separators=(",", ":"))


def metrics_body(wallet: Address, usage: Usage, timestamp: int, signature: bytes) -> bytes:
    """Encode the flat body."""
    return msgspec.json.encode(
        MetricsBody(
            wallet=wallet,
            tokensProcessed=usage.tokens,
            avgLatencyMs=usage.latency_ms,
            requestCount=usage.requests,
            uptimeSeconds=usage.uptime_s,
            timestamp=timestamp,
            # Some servers accept only a signature with 0x, which hex() leaves out.
            signature="0x" + signature.hex(),
        )
    )


def legacy_payload(wallet: Address, usage: Usage, timestamp: int) -> dict[str, Any]:
    """Make the payload of the older API."""
    return {
        "agent": wallet,
        "processed_tokens": usage.tokens,
        "avg_latency_ms": usage.latency_ms,
        "uptime_seconds": usage.uptime_s,
        "tasks_completed": usage.requests,
        "timestamp": timestamp,
    }


def legacy_body(payload: dict[str, Any], signature: bytes) -> bytes:
    """Encode the older body."""
    return msgspec.json.encode({"payload": payload, "signature": "0x" + signature.hex()})


def read_report(path: str, body: bytes) -> SignedReport:
    """Decode the report in a body sent to `path`. Raises `BadReport`."""
    try:
        if path == METRICS_PATH:
            flat = msgspec.json.decode(body, type=MetricsBody)
            message = metrics_message(flat.wallet, flat.tokensProcessed, flat.timestamp)
            return SignedReport(
                wallet=flat.wallet,
                tokens=flat.tokensProcessed,
                timestamp=flat.timestamp,
                message=message,
                signature=_bytes(flat.signature),
            )
        outer = msgspec.json.decode(body, type=_Legacy)
        payload = msgspec.json.decode(outer.payload, type=LegacyPayload)
        message = legacy_message(json.loads(bytes(outer.payload)))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadReport(str(error)) from None
    return SignedReport(
        wallet=payload.agent,
        tokens=payload.processed_tokens,
        timestamp=payload.timestamp,
        message=message,
        signature=_bytes(outer.signature),
    )


def _bytes(signature: str) -> bytes:
    return bytes.fromhex(signature.removeprefix("0x"))
