"""The web side over real sockets: answers, refusals, start and stop."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from daemon.observer import http_connection as http_server
from daemon.observer.bridge import Bridge, OwnerView
from daemon.observer.owner_view import INVITATION_PATH, invitation_answer, may_show
from daemon.observer.server import web_server
from daemon.observer.settings import BoundAddress, ObserverSettings
from protocol.errors import UserError
from protocol.status import Status, status_at
from tests.story import AT, day, folded

pytestmark = pytest.mark.real
ANY_PORT = ObserverSettings(port=0)


class Reply(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(bound: BoundAddress, path: str, method: str = "GET", **headers: str) -> Reply:
    """One request over a connection of its own."""
    connection = http.client.HTTPConnection(bound.host, bound.port, timeout=10)
    try:
        connection.request(
            method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        response = connection.getresponse()
        return Reply(
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            response.read(),
        )
    finally:
        connection.close()


async def aask(bound: BoundAddress, path: str, method: str = "GET", **headers: str) -> Reply:
    return await trio.to_thread.run_sync(lambda: ask(bound, path, method, **headers))


def bridge_of(role: str = "node", clock: Callable[[], float] = time.monotonic) -> Bridge:
    bridge = Bridge(clock)
    bridge.publish(status_at(folded(day(role)), AT))
    return bridge


async def test_every_endpoint_answers() -> None:
    async with web_server(bridge_of(), ANY_PORT) as bound:
        page = await aask(bound, "/")
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b"basement-4090" in page.body
        status = await aask(bound, "/api/v1/status")
        assert msgspec.json.decode(status.body, type=Status).run.number == 6
        peers, rounds = await aask(bound, "/api/v1/peers"), await aask(bound, "/api/v1/rounds")
        assert (peers.json()["as_of"], len(peers.json()["peers"])) == (AT, 4)
        assert (rounds.json()["as_of"], rounds.json()["rounds"][0]["number"]) == (AT, 6)
        assert b"hypergpu_round 6.0" in (await aask(bound, "/metrics")).body
        for path in ("/healthz", "/readyz"):
            answer = await aask(bound, path)
            assert (answer.status, answer.json()["ok"]) == (200, True)
        for path in ("/static/page.css", "/static/page.js", "/static/icon.svg", "/favicon.ico"):
            assert (await aask(bound, path)).status == 200


async def test_every_answer_has_the_security_headers() -> None:
    async with web_server(bridge_of(), ANY_PORT) as bound:
        for path in ("/", "/api/v1/status", "/metrics", "/healthz", "/static/page.js", "/nothing"):
            headers = (await aask(bound, path)).headers
            assert headers["content-security-policy"].startswith("default-src 'self'")
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["server"] == "hypergpu"
            assert headers["cache-control"] == ("no-cache" if "etag" in headers else "no-store")


async def test_head_and_etag_revalidation() -> None:
    bridge = bridge_of()
    async with web_server(bridge, ANY_PORT) as bound:
        full, head = (
            await aask(bound, "/api/v1/status"),
            await aask(bound, "/api/v1/status", "HEAD"),
        )
        assert (head.status, head.body, head.headers["content-length"]) == (
            200,
            b"",
            str(len(full.body)),
        )
        assert head.headers["etag"] == full.headers["etag"]
        for known in (full.headers["etag"], f'"other", {full.headers["etag"]}', "*"):
            again = await aask(bound, "/api/v1/status", If_None_Match=known)
            assert (again.status, again.body) == (304, b"")
        assert (await aask(bound, "/api/v1/status", If_None_Match='"other"')).status == 200


async def test_server_refuses_other_hosts_origins_methods_and_paths() -> None:
    async with web_server(bridge_of(), ANY_PORT) as bound:
        for expected, code, headers in (
            (421, "HOST", {"Host": "evil.example"}),
            (403, "ORIGIN", {"Origin": "http://evil.example"}),
        ):
            answer = await aask(bound, "/api/v1/status", **headers)
            assert (answer.status, answer.json()["error"]["code"]) == (expected, code)
            assert b"stdlib-gpt" not in answer.body
        posted = await aask(bound, "/", "POST")
        assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD")
        missing = await aask(bound, "/../etc/passwd")
        assert (missing.status, missing.json()["error"]["code"]) == (404, "NOT_FOUND")
        assert "/metrics" in missing.json()["error"]["fix"]
        assert (await aask(bound, "/?" + "x" * 3000)).status == 414
        # aiohttp refuses a longer path before our guard sees it.
        assert (await aask(bound, "/?" + "x" * 9000)).status == 400


def garbage(bound: BoundAddress, data: bytes) -> None:
    """Send bytes and read until the server closes."""
    with (
        socket.create_connection((bound.host, bound.port), timeout=10) as connection,
        suppress(ConnectionError),
    ):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


async def test_server_survives_garbage(caplog: pytest.LogCaptureFixture) -> None:
    async with web_server(bridge_of(), ANY_PORT) as bound:
        before = (await aask(bound, "/api/v1/status")).body
        for data in (
            bytes(range(256)) * 8,
            b"\x16\x03\x01\x02\x00\x01" * 50,
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
            b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"",
        ):
            await trio.to_thread.run_sync(garbage, bound, data)
        assert (await aask(bound, "/api/v1/status")).body == before
    assert "Traceback" not in caplog.text


async def test_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "IDLE_S", 0.2)
    async with web_server(bridge_of(), ANY_PORT) as bound:
        for opening in (b"", b"GET / HTTP/1.1\r\nHost: loc"):
            stream = await trio.open_tcp_stream(bound.host, bound.port)
            if opening:
                await stream.send_all(opening)
            with trio.fail_after(5):
                assert await stream.receive_some() == b""


async def test_connection_above_the_limit_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 2)
    async with web_server(bridge_of(), ANY_PORT) as bound:
        first = [await trio.open_tcp_stream(bound.host, bound.port) for _ in range(2)]
        for stream in first:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        late = await trio.open_tcp_stream(bound.host, bound.port)
        with trio.fail_after(5):
            assert await late.receive_some() == b""
        for stream in first:
            await stream.aclose()


async def test_healthz_reports_a_hanging_swarm_side() -> None:
    now = 0.0
    bridge = bridge_of(clock=lambda: now)
    async with web_server(bridge, ANY_PORT) as bound:
        assert (await aask(bound, "/healthz")).status == 200
        now = 60.0
        hung = await aask(bound, "/healthz")
        assert (hung.status, hung.json()["ok"]) == (503, False)
        assert "60 s" in hung.json()["reason"]


async def test_readyz_reports_a_node_that_is_starting() -> None:
    bridge = Bridge()
    async with web_server(bridge, ANY_PORT) as bound:
        assert (await aask(bound, "/readyz")).status == 503
        bridge.publish(status_at(folded(day("observer")[:1]), AT))
        bridge._rendered_at = -10.0
        assert (await aask(bound, "/readyz")).json()[
            "reason"
        ] == "no peer of the run has been reached yet"
    async with web_server(bridge_of("observer"), ANY_PORT) as bound:
        assert (await aask(bound, "/readyz")).status == 200


async def test_readyz_follows_the_verdict_of_a_run_that_stands_still() -> None:
    bridge = Bridge()
    state = folded(day("observer"))
    async with web_server(bridge, ANY_PORT) as bound:
        bridge.publish(status_at(state, AT))
        assert (await aask(bound, "/readyz")).status == 200
        bridge.publish(status_at(state, AT + 60))
        bridge._rendered_at = -10.0
        still = await aask(bound, "/readyz")
        assert (still.status, still.json()["ok"]) == (503, False)
        assert still.json()["reason"].startswith("No round certified for 1 min 20 s (usually 14 s)")
        assert (await aask(bound, "/healthz")).status == 200
        assert b"hypergpu_standstill 1.0" in (await aask(bound, "/metrics")).body


async def test_web_server_on_a_used_port_says_what_to_do() -> None:
    async with web_server(bridge_of(), ANY_PORT) as bound:
        with pytest.raises(UserError) as caught:
            async with web_server(bridge_of(), ObserverSettings(port=bound.port)):
                pass
        assert caught.value.code == "PORT_IN_USE"
        assert str(bound.port) in caught.value.what
        assert "[observer]" in caught.value.fix


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
async def test_web_server_on_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(UserError) as caught:
        async with web_server(bridge_of(), ObserverSettings(host=host, port=0)):
            pass
    assert caught.value.code == "OBSERVER_ADDRESS"


async def test_web_server_on_ipv6_loopback() -> None:
    async with web_server(bridge_of(), ObserverSettings(host="::1", port=0)) as bound:
        assert bound.url == f"http://[::1]:{bound.port}/"
        assert (await aask(bound, "/healthz")).status == 200


@pytest.mark.parametrize("cancelled", [False, True])
async def test_web_server_with_clients_stops_within_a_second(cancelled: bool) -> None:
    threads = set(threading.enumerate())
    began = 0.0
    with trio.CancelScope() as scope:
        async with web_server(bridge_of(), ANY_PORT) as bound:
            idle, busy = [await trio.open_tcp_stream(bound.host, bound.port) for _ in range(2)]
            await busy.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await busy.receive_some()
            await idle.send_all(b"GET / HT")
            began = time.monotonic()
            if cancelled:
                scope.cancel()
                await trio.sleep_forever()
    assert time.monotonic() - began < 1.0
    with trio.fail_after(5):
        assert await idle.receive_some() == b""
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream(bound.host, bound.port)
    left = [
        thread.name for thread in set(threading.enumerate()) - threads if "asyncio" in thread.name
    ]
    assert left == []


async def test_web_server_raises_the_failure_of_its_block_and_frees_the_port() -> None:
    with pytest.RaisesGroup(ValueError):
        async with web_server(bridge_of(), ANY_PORT) as bound:
            raise ValueError("ours")
    async with web_server(bridge_of(), ObserverSettings(port=bound.port)) as again:
        assert again.port == bound.port


# ------------------------------------------------------------------------ the owner's invitation

VIEW = OwnerView(key="ab" * 16, command="hypergpud start --join hgpu1x", terms="for one peer")


async def test_only_the_key_of_the_owners_link_shows_the_invitation() -> None:
    bridge = bridge_of()
    async with web_server(bridge, ANY_PORT) as bound:
        assert (await aask(bound, INVITATION_PATH, X_HyperGPU_Owner=VIEW.key)).status == 403
        bridge.owner_view = VIEW
        shown = await aask(bound, INVITATION_PATH, X_HyperGPU_Owner=VIEW.key)
        assert (shown.status, shown.json()) == (
            200,
            {"command": VIEW.command, "terms": VIEW.terms},
        )
        assert shown.headers["cache-control"] == "no-store"
        for headers in (
            {},
            {"X_HyperGPU_Owner": ""},
            {"X_HyperGPU_Owner": "cd" * 16},
            {"X_HyperGPU_Owner": "\xff"},
            {"X_HyperGPU_Owner": VIEW.key, "Host": "evil.example"},
            {"X_HyperGPU_Owner": VIEW.key, "Origin": "http://evil.example"},
        ):
            refused = await aask(bound, INVITATION_PATH, **headers)
            assert refused.status in {403, 421}, headers
            assert VIEW.command.encode() not in refused.body
        for path in ("/", "/api/v1/status", "/metrics", "/static/page.js"):
            assert b"hgpu1x" not in (await aask(bound, path)).body


@pytest.mark.parametrize(
    ("host", "hosts", "shown"),
    [
        ("127.0.0.1", (), True),
        ("::1", (), True),
        ("0.0.0.0", (), False),
        ("192.168.1.4", (), False),
        ("127.0.0.1", ("runs.example.org",), False),
    ],
)
def test_a_page_that_others_reach_shows_no_invitation(
    host: str, hosts: tuple[str, ...], shown: bool
) -> None:
    settings = ObserverSettings(host=host, hosts=hosts)
    assert may_show(settings, BoundAddress(host=host, port=1)) is shown
    assert invitation_answer(VIEW, VIEW.key, "192.168.1.9").status == 403
