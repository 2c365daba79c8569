"""Reports byte for byte, sent until they are taken, and taken once: every refusal with its status
and reason.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon.observer.bridge import Bridge
from daemon.observer.server import web_server
from daemon.observer.settings import ObserverSettings
from daemon.oracle.receiver import BURST, KEPT_S, SKEW_S, ReportReceiver
from daemon.oracle.reporter import OracleEndpoint, OracleReporter, ReportSigner
from daemon.oracle.reports import (
    LEGACY_PATH,
    MAX_BODY_BYTES,
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
from daemon.wallet.keystore import UnlockedWallet, recover_text, wallet_of
from protocol.journal import JournalEvent

ONE = wallet_of((1).to_bytes(32, "big"))
TWO = wallet_of((2).to_bytes(32, "big"))
NOW = 1_770_000_000
USAGE = Usage(tokens=600, requests=3, latency_ms=1.5, uptime_s=60)
VECTOR = '{"agent":"0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf","processed_tokens":600,"timestamp":1770000000}'


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


# ------------------------------------------------------------------------------------------------ bytes


def test_the_signed_text_is_the_vectors() -> None:
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


def test_the_older_payload_is_signed_sorted_and_compact() -> None:
    assert legacy_message(legacy_payload(ONE.address, USAGE, NOW)) == (
        '{"agent":"0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf","avg_latency_ms":1.5,"processed_tokens":600,'
        '"tasks_completed":3,"timestamp":1770000000,"uptime_seconds":60}'
    )


def test_the_signature_is_written_with_0x() -> None:
    """`bytes.hex()` has none, and a server that asks for it takes nothing else."""
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
def test_what_is_written_is_read(path: str, body: bytes) -> None:
    report = read_report(path, body)
    assert (report.wallet, report.tokens, report.timestamp) == (ONE.address, 600, NOW)
    assert recover_text(report.message, report.signature) == ONE.address
    with pytest.raises(BadReport):
        read_report(METRICS_PATH if path == LEGACY_PATH else LEGACY_PATH, body)


@given(st.sampled_from([METRICS_PATH, LEGACY_PATH]), st.binary(max_size=200))
def test_no_bytes_crash_the_reader(path: str, body: bytes) -> None:
    with pytest.raises(BadReport):
        read_report(path, body)


# ------------------------------------------------------------------------------------------------ receiving


@pytest.mark.parametrize(("path", "make"), [(METRICS_PATH, flat), (LEGACY_PATH, older)])
def test_a_report_is_taken_once(path: str, make: Callable[..., bytes]) -> None:
    desk = Desk()
    assert desk.take(make(), path) == (200, "ok")
    assert desk.take(make(), path) == (400, "replay")
    assert desk.take(make(NOW - 1), path) == (400, "replay")
    assert desk.take(make(NOW + 1), path) == (200, "ok")
    assert desk.take(make(who=TWO), path) == (200, "ok")
    assert desk.receiver.tokens(ONE.address) == 1200


def test_one_api_does_not_take_what_the_other_took() -> None:
    desk = Desk()
    assert desk.take(flat()) == (200, "ok")
    assert desk.take(older(), LEGACY_PATH) == (400, "replay")


def test_another_spelling_of_the_wallet_is_the_same_wallet() -> None:
    desk = Desk()
    assert desk.take(flat()) == (200, "ok")
    text = ONE.address.lower()
    body = json.loads(flat())
    body |= {
        "wallet": text,
        "signature": "0x" + ONE.sign_text(metrics_message(text, 600, NOW)).hex(),
    }
    assert desk.take(json.dumps(body).encode()) == (400, "replay")


@pytest.mark.parametrize(
    ("offset", "status"), [(-SKEW_S - 1, 400), (-SKEW_S, 200), (SKEW_S, 200), (SKEW_S + 1, 400)]
)
def test_the_timestamp_is_within_a_minute(offset: int, status: int) -> None:
    assert Desk().take(flat(NOW + offset))[0] == status


def test_a_signature_of_another_is_refused_and_uses_nothing_up() -> None:
    desk = Desk()
    assert desk.take(flat(signer=TWO)) == (401, "signature")
    body = json.loads(flat())
    for changed in (
        {"tokensProcessed": 601},
        {"wallet": TWO.address},
        {"signature": "0x" + "00" * 65},
    ):
        assert desk.take(json.dumps(body | changed).encode()) == (401, "signature")
    assert desk.take(flat()) == (200, "ok")


def test_the_mirrored_signature_is_refused() -> None:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    signature = ONE.sign_text(VECTOR)
    mirrored = (
        signature[:32]
        + (order - int.from_bytes(signature[32:64], "big")).to_bytes(32, "big")
        + bytes([55 - signature[64]])
    )
    body = json.loads(flat()) | {"signature": mirrored.hex()}
    assert Desk().take(json.dumps(body).encode()) == (401, "signature")


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"timestamp": 1.5},
        {"tokensProcessed": -1},
        {"wallet": "0x12"},
        {"signature": "zz"},
        {"wallet": None},
    ],
)
def test_unknown_fields_and_wrong_values_are_refused(change: dict[str, object]) -> None:
    assert Desk().take(json.dumps(json.loads(flat()) | change).encode()) == (400, "malformed")


def test_size_and_rate_are_limited() -> None:
    desk = Desk()
    assert desk.take(b"x" * (MAX_BODY_BYTES + 1)) == (413, "oversized")
    answers = [desk.take(b"{}", sender="one")[0] for _ in range(BURST + 5)]
    assert answers == [400] * BURST + [429] * 5
    assert desk.take(b"{}", sender="another")[0] == 400
    desk.now += 2.0
    assert [desk.take(b"{}", sender="one")[0] for _ in range(3)] == [400, 400, 429]


def test_a_restart_forgets_no_timestamp(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "reports")
    assert desk.take(flat(NOW + SKEW_S)) == (200, "ok")
    desk.receiver.close()
    again = Desk(tmp_path / "reports")
    # The last instant at which that report is in time.
    again.now += 2 * SKEW_S
    assert again.take(flat(NOW + SKEW_S)) == (400, "replay")
    assert KEPT_S > 2 * SKEW_S


def test_a_full_desk_forgets_only_what_can_never_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daemon.oracle.receiver.MAX_WALLETS", 1)
    desk = Desk()
    assert desk.take(flat(NOW + SKEW_S)) == (200, "ok")
    # Up to the last instant at which that report is in time.
    for later in (0, 2 * SKEW_S):
        desk.now = NOW + later
        assert desk.take(flat(int(desk.now), TWO)) == (429, "full")
        assert desk.take(flat(NOW + SKEW_S)) == (400, "replay")
    desk.now += KEPT_S + 1
    assert desk.take(flat(int(desk.now), TWO)) == (200, "ok")


# ------------------------------------------------------------------------------------------------ sending


class Oracle:
    """A desk that can be away, refuse, or lose its answer."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.away = False
        self.status: int | None = None
        self.bodies: list[bytes] = []

    def __call__(self, url: str, body: bytes) -> int:
        if self.away:
            raise ConnectionRefusedError(111, "nobody there")
        self.bodies.append(body)
        return self.status or self.desk.take(body, "/" + url.split("/", 3)[3])[0]


class Worker:
    def __init__(self, folder: Path, oracle: Oracle, *, legacy: bool = False) -> None:
        self.figures = (0, 0)
        self.events: list[JournalEvent] = []
        self.reporter = OracleReporter(
            oracle=OracleEndpoint(url="http://oracle.example/", legacy=legacy),
            signer=ReportSigner(wallet=ONE.address, sign=ONE.sign_text),
            folder=folder,
            figures=lambda: self.figures,
            record=self.events.append,
            now=lambda: oracle.desk.now,
            send=oracle,
        )

    def report(self, samples: int, rounds: int = 1) -> bool:
        self.figures = (samples, rounds)
        return self.reporter.report()


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_is_dropped_before_the_oracle_took_it(tmp_path: Path, legacy: bool) -> None:
    oracle = Oracle()
    worker = Worker(tmp_path, oracle, legacy=legacy)
    assert worker.report(0)
    assert oracle.bodies == []
    oracle.away = True
    assert not worker.report(10)
    oracle.away, oracle.status = False, 500
    assert not worker.report(30)
    oracle.status = None
    assert worker.report(35)
    assert oracle.desk.receiver.tokens(ONE.address) == 35
    # One sentence for each way in which it failed.
    assert len(worker.events) == 2


def test_the_next_process_reports_what_the_last_could_not_and_nothing_again(tmp_path: Path) -> None:
    oracle = Oracle()
    first = Worker(tmp_path, oracle)
    assert first.report(10)
    oracle.away = True
    assert not first.report(25)
    oracle.away = False
    second = Worker(tmp_path, oracle)
    assert second.report(25)
    assert oracle.desk.receiver.tokens(ONE.address) == 25
    assert second.report(25)
    assert len(oracle.bodies) == 2
    oracle.desk.now -= 30.0  # a clock that was set back
    assert second.report(26)
    stamps = [json.loads(body)["timestamp"] for body in oracle.bodies]
    assert stamps == sorted(set(stamps))


# ------------------------------------------------------------------------------------------------ over HTTP


@pytest.mark.real
async def test_the_observer_takes_reports_where_it_is_told_to(tmp_path: Path) -> None:

    def ask(url: str, body: bytes, **headers: str) -> tuple[int, dict[str, object]]:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    settings = ObserverSettings(port=0, reports=tmp_path / "reports")
    async with web_server(Bridge(), settings) as bound:
        url = bound.url.rstrip("/")
        body = flat(int(time.time()))

        def story() -> list[tuple[int, str]]:
            answers = [
                ask(url + METRICS_PATH, body),
                ask(url + METRICS_PATH, body),
                ask(url + METRICS_PATH, b"x" * (MAX_BODY_BYTES + 1)),
            ]
            answers += [
                ask(url + LEGACY_PATH, older(int(time.time()), TWO)),
                ask(url + METRICS_PATH, flat(int(time.time()) + 9, signer=TWO)),
            ]
            told = [(status, str(answer["reason"])) for status, answer in answers]
            told.append((ask(url + METRICS_PATH, body, Origin="http://evil.example")[0], "origin"))
            told.append((ask(url + "/api/v1/status", b"{}")[0], "method"))
            return told

        assert await trio.to_thread.run_sync(story) == [
            (200, "ok"),
            (400, "replay"),
            (413, "oversized"),
            (200, "ok"),
            (401, "signature"),
            (403, "origin"),
            (405, "method"),
        ]
    async with web_server(Bridge(), ObserverSettings(port=0)) as bound:
        status, _ = await trio.to_thread.run_sync(
            lambda: ask(bound.url.rstrip("/") + METRICS_PATH, flat())
        )
        assert status == 405
