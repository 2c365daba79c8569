"""What the receiver accepts, what it refuses, and what a restart keeps."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from daemon.observer.bridge import Bridge
from daemon.observer.server import web_server
from daemon.observer.settings import ObserverSettings
from daemon.oracle.receiver import BURST, KEPT_S, SKEW_S
from daemon.oracle.reports import (
    LEGACY_PATH,
    MAX_BODY_BYTES,
    METRICS_PATH,
    metrics_message,
)
from tests.daemon.oracle.signed_reports import NOW, ONE, TWO, VECTOR, Desk, flat, older


@pytest.mark.parametrize(("path", "make"), [(METRICS_PATH, flat), (LEGACY_PATH, older)])
def test_a_report_is_accepted_once(path: str, make: Callable[..., bytes]) -> None:
    desk = Desk()
    assert desk.take(make(), path) == (200, "ok")
    assert desk.take(make(), path) == (400, "replay")
    assert desk.take(make(NOW - 1), path) == (400, "replay")
    assert desk.take(make(NOW + 1), path) == (200, "ok")
    assert desk.take(make(who=TWO), path) == (200, "ok")
    assert desk.receiver.tokens(ONE.address) == 1200


def test_a_report_is_accepted_by_one_of_the_two_apis() -> None:
    desk = Desk()
    assert desk.take(flat()) == (200, "ok")
    assert desk.take(older(), LEGACY_PATH) == (400, "replay")


def test_wallets_are_compared_without_case() -> None:
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


def test_a_foreign_signature_is_refused_and_leaves_the_timestamp_unused() -> None:
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


def test_a_full_receiver_forgets_only_expired_timestamps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daemon.oracle.receiver.MAX_WALLETS", 1)
    desk = Desk()
    assert desk.take(flat(NOW + SKEW_S)) == (200, "ok")
    # The receiver remembers it until the last instant at which that report is in time.
    for later in (0, 2 * SKEW_S):
        desk.now = NOW + later
        assert desk.take(flat(int(desk.now), TWO)) == (429, "full")
        assert desk.take(flat(NOW + SKEW_S)) == (400, "replay")
    desk.now += KEPT_S + 1
    assert desk.take(flat(int(desk.now), TWO)) == (200, "ok")


@pytest.mark.real
async def test_the_observer_accepts_reports_if_configured(tmp_path: Path) -> None:

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
