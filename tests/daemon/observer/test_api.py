"""The API over real sockets: pages of lists, the original dashboard's paths, limits, origins."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import trio

from daemon.observer.api.dashboard import changes, training_state
from daemon.observer.api.openapi import openapi_document
from daemon.observer.api.resources import RESOURCES, RewardsBody
from daemon.observer.bridge import Bridge
from daemon.observer.client_limits import BURST, CONNECTIONS, ClientLimits, client_of
from daemon.observer.endpoints import ENDPOINTS, PROBES
from daemon.observer.history.history_store import HistoryStore
from daemon.observer.server import web_server
from daemon.observer.settings import BoundAddress, ObserverSettings
from protocol.status import Status, fold, status_at
from tests.daemon.observer.http_client import aask
from tests.daemon.observer.test_history_store import an_event, until
from tests.story import AT, PEERS, certified, day, folded, report, started

pytestmark = pytest.mark.real
ANY_PORT = ObserverSettings(port=0)
ADDRESS = "0x" + "ab" * 20


def bridge_of(status: Status | None = None) -> Bridge:
    bridge = Bridge()
    bridge.publish(status or status_at(folded(day("observer")), AT))
    return bridge


async def test_api_gives_lists_page_by_page_until_the_end() -> None:
    async with web_server(bridge_of(), ANY_PORT) as bound:
        for path, field, name in (
            ("/api/v1/peers", "peers", "peer"),
            ("/api/v1/rounds", "rounds", "number"),
        ):
            whole = (await aask(bound, path)).json()
            assert whole["next"] == ""
            pages, target = [], f"{path}?limit=2"
            while target:
                page = (await aask(bound, target)).json()
                assert len(page[field]) <= 2
                pages += page[field]
                target = page["next"]
            assert [one[name] for one in pages] == [one[name] for one in whole[field]]


async def test_api_history_and_events_read_on_from_the_store(tmp_path: Path) -> None:
    bridge = bridge_of()
    store = HistoryStore(tmp_path / "run.sqlite", 64_000_000)
    store.open()
    for number in range(1, 8):
        store.add(an_event(number))
    until(lambda: len(store.dates()) == 7)
    bridge.store = store
    for text in ("one", "two", "three"):
        bridge.feed.add(at=AT, kind="notice", level="info", text=text)
    async with web_server(bridge, ANY_PORT) as bound:
        numbers, target = [], "/api/v1/history?limit=3"
        while target:
            page = (await aask(bound, target)).json()
            numbers += [one["number"] for one in page["rounds"]]
            target = page["next"]
        assert numbers == [7, 6, 5, 4, 3, 2, 1]
        texts, target = [], "/api/v1/events?limit=4"
        while target:
            page = (await aask(bound, target)).json()
            texts += [one["text"] for one in page["events"]]
            target = page["next"]
        assert texts == ["three", "two", "one", *(f"Event {n}." for n in range(7, 0, -1))]
        # Without the disk, reads that need it say so, and the others answer.
        store.trouble = "the history cannot be written: the disk is full"
        refused = await aask(bound, "/api/v1/history")
        assert (refused.status, refused.json()["error"]["code"]) == (503, "UNAVAILABLE")
        assert "the disk is full" in refused.json()["error"]["what"]
        assert (await aask(bound, "/api/v1/events?limit=2")).status == 200
        assert (await aask(bound, "/api/v1/rounds")).status == 200
    store.close()


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/rounds?limit=0",
        "/api/v1/rounds?limit=501",
        "/api/v1/rounds?limit=x",
        "/api/v1/rounds?limit=1&limit=2",
        "/api/v1/rounds?limt=3",
        "/api/v1/events?cursor=-1",
        "/api/v1/events?cursor=%ff",
        "/api/v1/history?cursor=1",
        "/api/v1/history?cursor=" + "9" * 200,
        "/api/v1/rewards/0x12",
        "/api/v1/rewards/" + "zz" * 21,
    ],
)
async def test_api_refuses_a_bad_parameter_in_its_one_form(target: str) -> None:
    async with web_server(bridge_of(), ANY_PORT) as bound:
        answer = await aask(bound, target)
        error = answer.json()["error"]
        assert (answer.status, error["status"], error["code"]) == (400, 400, "BAD_QUERY")
        assert error["what"].endswith(".")


async def test_api_answers_the_paths_of_the_original_dashboard() -> None:
    async with web_server(bridge_of(), ANY_PORT) as bound:
        assert (await aask(bound, "/health")).json()["status"] == "ok"
        status = (await aask(bound, "/api/status")).json()
        assert (status["state"], status["round"], status["run_name"]) == (
            "running",
            6,
            "stdlib-gpt",
        )
        assert (await aask(bound, "/api/metrics")).json()["samples"] == 2400
        nodes = (await aask(bound, "/api/nodes")).json()
        assert nodes["count"] == len(nodes["nodes"]) == 4
        first = nodes["nodes"][0]
        assert (await aask(bound, f"/api/nodes/{first['id']}")).json() == first
        assert (await aask(bound, "/api/nodes/nobody")).status == 404
        session = (await aask(bound, "/api/blockchain/session")).json()
        assert (session["pays"], session["name"]) == (False, "stdlib-gpt")
        work = (await aask(bound, "/api/blockchain/contributions")).json()
        assert [one["samples"] for one in work["contributions"]] == [600] * 4
        assert sum(one["share"] for one in work["contributions"]) == pytest.approx(1.0)
        assert (await aask(bound, "/api/config")).json()["task"] == "byte_gpt"


async def test_api_never_says_that_a_paying_run_pays_nothing() -> None:
    pays = msgspec.structs.replace(started("observer"), chain="hypergpu")
    bridge = bridge_of(status_at(folded([pays]), AT))
    async with web_server(bridge, ANY_PORT) as bound:
        assert (await aask(bound, "/api/blockchain/session")).json()["pays"] is True
        assert b"pays nothing" not in (await aask(bound, "/")).body
        unknown = await aask(bound, f"/api/v1/rewards/{ADDRESS}")
        assert unknown.status == 503
        bridge.rewards = lambda address, as_of: RewardsBody(
            as_of=as_of, address=address, pays=True, earned="12"
        )
        assert (await aask(bound, f"/api/v1/rewards/{ADDRESS}")).json()["earned"] == "12"


async def test_api_describes_every_path_that_it_serves() -> None:
    document = openapi_document()
    json.dumps(document)
    assert document["openapi"].startswith("3.1")
    paths = {one.path for one in (*ENDPOINTS, *RESOURCES)} | set(PROBES)
    assert paths <= document["paths"].keys()
    for reference in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)):
        assert reference in document["components"]["schemas"]
    async with web_server(bridge_of(), ANY_PORT) as bound:
        assert (await aask(bound, "/api/openapi.json")).json() == json.loads(json.dumps(document))
        page = await aask(bound, "/api/docs")
        assert b"/api/v1/rewards/{address}" in page.body
        for path, operations in document["paths"].items():
            if "get" not in operations:
                continue
            target = path.replace("{address}", ADDRESS).replace("{id}", PEERS[1])
            answer = await aask(bound, target)
            assert str(answer.status) in {*operations["get"]["responses"], "400"}, path
            assert answer.status < 500 or "503" in operations["get"]["responses"], path


async def test_api_lets_only_named_origins_read_it() -> None:
    settings = ObserverSettings(port=0, origins=("https://dash.example",))
    async with web_server(bridge_of(), settings) as bound:
        for headers in (
            {"Origin": "https://dash.example"},
            {"Origin": "https://dash.example", "Sec_Fetch_Site": "cross-site"},
        ):
            read = await aask(bound, "/api/v1/run", **headers)
            assert read.status == 200
            assert read.headers["access-control-allow-origin"] == "https://dash.example"
            assert read.headers["vary"] == "Origin"
        asked = await aask(bound, "/api/v1/run", "OPTIONS", Origin="https://dash.example")
        assert asked.status == 204
        assert "Last-Event-ID" in asked.headers["access-control-allow-headers"]
        for origin in ("https://evil.example", "http://dash.example", "null"):
            refused = await aask(bound, "/api/v1/run", Origin=origin)
            assert refused.status == 403
            assert "access-control-allow-origin" not in refused.headers
        assert (await aask(bound, "/", "OPTIONS", Origin="https://evil.example")).status == 405


async def flood(bound: BoundAddress, source: str, requests: int) -> bytes:
    """Send requests over one connection without waiting. Returns all answers until it is closed."""
    stream = await trio.open_tcp_stream(bound.host, bound.port, local_address=source)
    answers = b""
    async with stream:
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * requests)
        with trio.fail_after(20):
            # The server closes a connection after a refusal.
            with suppress(trio.BrokenResourceError):
                while data := await stream.receive_some(65536):
                    answers += data
    return answers


async def test_api_limits_the_requests_of_one_address_and_not_of_another() -> None:
    async with web_server(bridge_of(), ANY_PORT) as bound:
        # All at once: one by one, a busy machine would ask no faster than the limit allows.
        answers = await flood(bound, "127.0.0.7", 2 * int(BURST))
        assert answers.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 429 " in answers
        _, _, limited = answers.partition(b"HTTP/1.1 429 ")
        assert b'"code":"RATE"' in limited
        assert b"retry-after: 1\r\n" in limited.lower()
        assert (await aask(bound, "/healthz", source="127.0.0.8")).status == 200


def test_client_limits_count_connections_and_bound_their_own_memory() -> None:
    limits = ClientLimits()
    assert all(limits.connect("192.0.2.1") for _ in range(CONNECTIONS))
    assert not limits.connect("192.0.2.1")
    assert limits.connect("192.0.2.2")
    limits.disconnect("192.0.2.1")
    assert limits.connect("192.0.2.1")
    # A household has many IPv6 addresses.
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff") != client_of("2001:db8:0:1::1")
    assert client_of("::ffff:192.0.2.1") == "192.0.2.1"
    for number in range(10_000):
        assert limits.request(f"10.0.{number // 256}.{number % 256}", 0.0)
    assert len(limits._rates) <= 4096


def test_dashboard_messages_tell_what_changed_and_nothing_else() -> None:
    state = folded(day("observer"))
    before = status_at(state, AT)
    assert changes(before, status_at(state, AT + 0.5)) == []
    fold(state, certified(7, "observed", at=AT + 1))
    fold(state, report(1, at=AT + 1))
    after = status_at(state, AT + 1)
    assert [one.type for one in changes(before, after)] == ["metrics_update", "node_update"]
    still = status_at(state, AT + 300)
    assert training_state(still) == "stalled"
    assert changes(after, still)[0].type == "training_error"
    assert changes(still, after)[0].type == "training_started"
