"""The bodies of reports, and the exact bytes that are signed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.oracle.reports import (
    LEGACY_PATH,
    METRICS_PATH,
    BadReport,
    Usage,
    legacy_body,
    legacy_message,
    legacy_payload,
    metrics_body,
    metrics_message,
    read_report,
)
from daemon.wallet.keystore import recover_text
from tests.daemon.oracle.signed_reports import NOW, ONE, USAGE, VECTOR, flat, older


def test_the_signed_text_equals_the_vector() -> None:
    assert metrics_message(ONE.address, 600, NOW) == VECTOR
    body = json.loads(flat())
    assert body["signature"] == (
        "0xb34834d1c90f00d82a0ed0df1ab75b626a5a4a524547549b3d948d59d106819d"
        "5f3c92ff59e78998760bacf5945a33ca2aa048786fd64d6ea41d524f2eb4a46e1b"
    )
    assert set(body) == {
        "wallet",
        "tokensProcessed",
        "avgLatencyMs",
        "requestCount",
        "uptimeSeconds",
        "timestamp",
        "signature",
    }


def test_the_older_payload_is_sorted_compact_json() -> None:
    assert legacy_message(legacy_payload(ONE.address, USAGE, NOW)) == (
        '{"agent":"0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf","avg_latency_ms":1.5,'
        '"processed_tokens":600,'
        '"tasks_completed":3,"timestamp":1770000000,"uptime_seconds":60}'
    )


def test_the_signature_is_written_with_0x() -> None:
    """Some servers accept only signatures with 0x, which `bytes.hex()` leaves out."""
    usage = Usage(tokens=1, requests=1, latency_ms=0.0, uptime_s=1)
    signature = b"\x12" * 65
    assert (
        json.loads(metrics_body(ONE.address, usage, NOW, signature))["signature"]
        == "0x" + "12" * 65
    )
    assert (
        json.loads(legacy_body(legacy_payload(ONE.address, usage, NOW), signature))["signature"]
        == "0x" + "12" * 65
    )


@pytest.mark.parametrize(("path", "body"), [(METRICS_PATH, flat()), (LEGACY_PATH, older())])
def test_a_written_report_reads_back(path: str, body: bytes) -> None:
    report = read_report(path, body)
    assert (report.wallet, report.tokens, report.timestamp) == (ONE.address, 600, NOW)
    assert recover_text(report.message, report.signature) == ONE.address
    with pytest.raises(BadReport):
        read_report(METRICS_PATH if path == LEGACY_PATH else LEGACY_PATH, body)


@given(st.sampled_from([METRICS_PATH, LEGACY_PATH]), st.binary(max_size=200))
def test_no_bytes_crash_the_reader(path: str, body: bytes) -> None:
    with pytest.raises(BadReport):
        read_report(path, body)
